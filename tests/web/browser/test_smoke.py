"""The page opens, writes and branches. The other tests of the page are long; this file takes seconds."""

import pytest
from browser import Site
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_the_page_opens_writes_and_branches(open_page, small_site: Site) -> None:
    page = open_page(small_site)
    assert small_site.token not in page.url
    page.get_by_role("textbox", name="Prompt").fill("KEEPER:\n")
    page.get_by_role("spinbutton", name="Tokens").fill("30")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".writer-message").first).to_have_text("30 tokens written.")
    text = page.locator(".writer").first
    expect(text.get_by_role("option")).to_have_count(8 + 30 + 1)  # the prompt, the new tokens and the end

    text.get_by_role("option").nth(20).click()
    bars = text.locator(".bars[aria-busy=false] button")
    expect(bars).to_have_count(20)
    alternative = bars.and_(page.locator("[aria-pressed=false]")).first
    alternative.click()
    expect(text.get_by_role("treeitem")).to_have_count(2)
    expect(text.get_by_role("option")).to_have_count(20 + 1 + 30 + 1)

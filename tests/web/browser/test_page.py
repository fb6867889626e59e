"""The page as a whole: its token, its tabs, its widths, its themes, hostile texts."""

import re

import pytest
from browser import Site
from playground_runs import HOSTILE_NAME, HOSTILE_TOKENS
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.long]
VIEWS = ("Write", "Look", "Runs", "Chat", "Train", "Compare")
TEXT = "KEEPER:\nSea the bell"


def fill_views(page: Page) -> None:
    """Let every view show something."""
    page.get_by_role("textbox", name="Prompt").fill(TEXT)
    page.locator("#write-run").select_option("trained")
    page.locator("#write-second-run").select_option("bigram")
    page.get_by_role("spinbutton", name="Tokens").fill("60")
    page.locator("#write-start").click()
    for number in (0, 1):
        writer = page.locator(".writer").nth(number)
        expect(writer.locator(".writer-message")).to_have_text("60 tokens written.")
        writer.get_by_role("option").nth(30).click()
        expect(writer.locator(".bars[aria-busy=false] li:visible")).to_have_count(20)
    page.get_by_role("tab", name="Look").click()
    page.locator("#look-run").select_option("trained")
    page.locator("#look-text").fill(TEXT)
    page.locator("#look-start").click()
    page.get_by_role("switch").first.click()
    expect(page.locator("#look-without .compare-loss")).to_contain_text("Mean loss")
    expect(page.locator(".lens td").first).to_be_visible()
    page.locator("#look-tokens [role=option]").last.hover()
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("button", name="trained", exact=True).click()
    expect(page.locator("#runs-curves .curves")).to_be_visible()
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Your message").fill("q1")
    page.locator("#chat-send").click()
    expect(page.locator("#chat-message")).to_have_text("The answer is complete.")
    page.get_by_role("tab", name="Train").click()
    page.locator("#train-select").select_option("trained")
    expect(page.locator("#train-heading")).to_have_text("trained")
    expect(page.locator("#train-curves .curves")).to_be_visible()
    page.get_by_text("All settings").click()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-own").check()
    page.locator("#compare-text").fill(TEXT)
    page.locator("#compare-start").click()
    expect(page.locator("#compare-message")).to_contain_text("Measured")
    expect(page.locator("#compare-curves .curves")).to_be_visible()


@pytest.mark.parametrize("width", [360, 1440])
def test_no_view_is_wider_than_the_window(open_page, site: Site, width: int) -> None:
    page = open_page(site, width)
    fill_views(page)
    for name in VIEWS:
        page.get_by_role("tab", name=name).click()
        assert page.evaluate("document.documentElement.scrollWidth") == width, name


@pytest.mark.parametrize("fragment", ["", "#token=not-the-token"])
def test_without_the_right_token_the_page_says_how_to_get_it(chromium: Browser, site: Site, fragment: str) -> None:
    page = chromium.new_page()
    page.goto(site.address + fragment)
    expect(page.locator("#page-message")).to_contain_text("open the whole URL that minigpt serve prints")
    expect(page.locator("#views")).to_be_hidden()
    assert page.url == site.address
    page.goto(site.url)  # a new fragment is no new page for the browser
    expect(page.locator("#views")).to_be_visible()
    page.close()


def test_the_token_leaves_the_address_and_outlives_a_reload(open_page, site: Site) -> None:
    page = open_page(site)
    assert site.token not in page.url
    page.reload()
    expect(page.locator("#views")).to_be_visible()
    assert page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0


def test_the_arrow_keys_open_the_tabs(open_page, site: Site) -> None:
    page = open_page(site)
    page.get_by_role("tab", name="Write").focus()
    for name in (*VIEWS[1:], VIEWS[0]):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tabpanel")).to_have_count(1)
        expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
    page.keyboard.press("End")
    page.reload()
    expect(page.get_by_role("tabpanel", name="Compare")).to_be_visible()


def test_names_and_tokens_are_text_and_never_markup(open_page, site: Site) -> None:
    page = open_page(site)
    elements = page.locator("img, main script, b").count()
    page.locator("#write-run").select_option(HOSTILE_NAME)
    expect(page.locator(".writer-name").first).to_have_text("<img src=x onerror=alert(1)>⟨U+202E⟩txt")
    page.locator("#write-run").select_option("hostile tokens")
    prompt = "a".join((*HOSTILE_TOKENS, "\x07b"))
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.locator("#write-start").click()
    writer = page.locator(".writer").first
    expect(writer.locator(".writer-message")).to_have_text("200 tokens written.")
    tokens = writer.get_by_role("option").all_text_contents()
    marks = ["<script>alert(1)</script>", "⟨U+202E⟩", "⟨U+2066⟩", "⟨U+200B⟩", "\u0301", "</span><b>"]
    assert tokens[: 2 * len(marks)] == [text for mark in marks for text in (mark, "a")]
    assert tokens[12] == "⟨U+0007⟩"
    writer.get_by_role("option").nth(20).click()
    expect(writer.locator(".bars[aria-busy=false] li:visible")).to_have_count(20)

    page.get_by_role("tab", name="Look").click()
    page.locator("#look-run").select_option("hostile tokens")
    page.locator("#look-text").fill(prompt)
    page.locator("#look-start").click()
    expect(page.locator(".lens td").first).to_be_visible()
    page.locator("#look-tokens [role=option]").nth(3).hover()
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("button", name="<img src=x", exact=False).first.click()
    expect(page.locator("#runs-metrics-name")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img, main script, b").count() == elements == 0
    texts = page.evaluate("document.body.innerText") + page.evaluate("document.title")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00-\x08]", texts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_shade(open_page, site: Site, scheme: str) -> None:
    page = open_page(site, color_scheme=scheme)
    page.evaluate(
        """() => {
            const list = document.querySelector('.tokens');
            list.closest('article').classList.remove('empty');
            list.innerHTML = '<span class="token replaced">x</span>';
            list.firstChild.style.setProperty('--shade', '1');
        }"""
    )
    text = read_color(page, ".token", "color")
    shade = read_color(page, ".token", "backgroundColor")
    surface = read_color(page, ".card", "backgroundColor")
    shade = mix(shade, surface)
    assert (luminance(surface) < 0.1) == (scheme == "dark")
    lighter, darker = sorted((luminance(mix(text, shade)), luminance(shade)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def read_color(page: Page, selector: str, name: str) -> list[float]:
    """Return red, green, blue and opacity, each from 0 to 1."""
    color = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{name}")
    numbers = [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", color.removeprefix("color(srgb"))]
    values = [number / 255 for number in numbers[:3]] if color.startswith("rgb") else numbers[:3]
    return [*values, *(numbers[3:] or [1.0])]


def mix(above: list[float], below: list[float]) -> list[float]:
    """Return the color of a color above another, opaque one."""
    return [high * above[3] + low * (1 - above[3]) for high, low in zip(above[:3], below, strict=False)] + [1.0]


def luminance(color: list[float]) -> float:
    """Return the relative luminance, as WCAG defines it."""
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_nothing_moves_for_readers_who_want_no_motion(open_page, site: Site) -> None:
    page = open_page(site, reduced_motion="reduce")
    page.locator("#write-run").select_option("trained")
    page.get_by_role("textbox", name="Prompt").fill(TEXT)
    page.locator("#write-start").click()
    writer = page.locator(".writer").first
    expect(writer.locator(".writer-message")).to_have_text("200 tokens written.")
    writer.get_by_role("option").nth(30).click()
    bar = writer.locator(".bars rect").first
    assert bar.evaluate("bar => getComputedStyle(bar).transitionProperty") == "none"

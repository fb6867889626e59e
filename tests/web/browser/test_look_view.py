"""The view Look: its values are the API's, and switching a head off changes them."""

import math
import re

import pytest
from browser import Site
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.long]
TEXT = "KEEPER:\nSea the bell"  # longer than the run's block_size of 16


def look(page: Page, run: str = "trained", text: str = TEXT) -> None:
    page.get_by_role("tab", name="Look").click()
    page.locator("#look-run").select_option(run)
    page.locator("#look-text").fill(text)
    page.locator("#look-start").click()
    expect(page.locator("#look-whole .compare-loss")).to_contain_text("Mean loss")
    expect(page.locator("#look-message")).to_have_text("")


def test_each_token_has_its_surprise(open_page, site: Site) -> None:
    page = open_page(site)
    look(page)
    positions = site.ask("positions", model="trained", text=TEXT)
    titles = [option.get_attribute("title") for option in page.locator("#look-tokens [role=option]").all()]
    assert titles[0] == "the first token, which nothing predicts"
    assert titles[1:] == [f"{loss / math.log(2):.1f} bits" for loss in positions["losses"][1:]]
    expect(page.locator("#look-whole .compare-loss")).to_contain_text(f"{positions['mean_loss']:.4f} nats")
    page.locator("#look-tokens [role=option]").nth(10).hover()
    expect(page.locator("#look-details")).to_contain_text(f"rank {positions['ranks'][10]}.")
    shades = page.locator("#look-tokens [role=option]").evaluate_all(
        "tokens => tokens.map(token => token.style.getPropertyValue('--shade'))"
    )
    wanted = [min(1, loss / math.log(2) / 8) for loss in positions["losses"][1:]]
    assert [float(shade) for shade in shades[1:]] == pytest.approx(wanted, abs=1e-3)


def test_the_shades_and_the_maps_are_the_attention_weights(open_page, site: Site) -> None:
    page = open_page(site)
    look(page)
    answer = site.ask("attention", model="trained", text=TEXT)
    offset = len(TEXT) - len(answer["tokens"])
    assert offset > 0
    page.get_by_role("button", name="Block 1, head 0: shade the text").click()
    expect(page.get_by_label("attention", exact=True)).to_be_checked()
    page.locator("#look-tokens [role=option]").nth(offset + 9).hover()
    shades = page.locator("#look-tokens [role=option]").evaluate_all(
        "tokens => tokens.map(token => token.style.getPropertyValue('--shade'))"
    )
    weights = [float(shade) ** 2 if shade else None for shade in shades]
    assert weights[:offset] == [None] * offset
    assert weights[offset : offset + 10] == pytest.approx(answer["weights"][1][0][9], abs=2e-3)
    assert weights[offset + 10 :] == [None] * (len(TEXT) - offset - 10)

    pixels = (
        page.get_by_role("button", name="Block 1, head 0: shade the text")
        .locator("canvas.map")
        .evaluate("map => [...map.getContext('2d').getImageData(0, 9, 10, 1).data].filter((_, at) => at % 4 == 3)")
    )
    assert [(pixel / 255) ** 2 for pixel in pixels] == pytest.approx(answer["weights"][1][0][9], abs=0.01)


def test_the_lens_table_has_the_apis_values(open_page, site: Site) -> None:
    page = open_page(site)
    look(page)
    lens = site.ask("lens", model="trained", text=TEXT, top=3)
    rows = page.locator(".lens tbody tr")
    expect(rows).to_have_count(len(lens["layers"]))
    for number, layer in enumerate(lens["layers"]):
        row = rows.nth(number)
        expect(row.locator("th")).to_have_text(layer["name"])
        cells = row.locator("td").all_text_contents()
        labels = [position["top"][0]["text"].replace(" ", "␣").replace("\n", "↵") for position in layer["positions"]]
        assert [cell[: len(label)] for cell, label in zip(cells, labels, strict=True)] == labels
        shown = [float(re.search(r"([\d.]+)%", cell[1:])[1]) for cell in cells]  # type: ignore[index]
        assert shown == pytest.approx([100 * each["top"][0]["probability"] for each in layer["positions"]], abs=0.06)
    page.locator("#look-tokens [role=option]").last.hover()
    expect(page.locator(".lens-details li")).to_have_count(len(lens["layers"]))
    expect(page.locator(".lens th.active")).to_have_count(1)


def test_switching_a_head_off_changes_loss_shades_and_continuation(open_page, site: Site) -> None:
    page = open_page(site)
    look(page)
    expect(page.locator("#look-whole .compare-continuation")).not_to_have_text("")
    whole = page.locator("#look-tokens [role=option]").nth(8).get_attribute("style")
    head = page.get_by_role("switch", name="Block 0, head 1")
    head.click()
    expect(head).to_have_attribute("aria-checked", "false")
    without = site.ask("positions", model="trained", text=TEXT, heads_off=[[0, 1]])
    expect(page.locator("#look-without .compare-loss")).to_contain_text(f"{without['mean_loss']:.4f} nats")
    expect(page.locator("#look-without .compare-continuation")).not_to_have_text("")
    expect(page.locator("#look-tokens [role=option]").nth(8)).not_to_have_attribute("style", whole or "")

    page.get_by_role("button", name="Switch all heads on").click()
    expect(page.locator("#look-without")).to_be_hidden()
    expect(page.locator("#look-tokens [role=option]").nth(8)).to_have_attribute("style", whole or "")


def test_passages_of_the_training_text_are_marked(open_page, site: Site, text: str) -> None:
    page = open_page(site)
    copied = text[100:145]
    look(page, text=f"xqzw {copied}".replace("x", "k").replace("q", "k").replace("z", "k"))
    answer = site.ask("memorization", model="trained", text=f"kkkw {copied}")
    marked = page.locator("#look-passages mark.passage-40")
    expect(marked.first).to_have_attribute("title", re.compile("in a passage of 4[5-9] characters"))
    assert page.locator("#look-passages").text_content().replace("↵", "") == f"kkkw {copied}"  # type: ignore[union-attr]
    expect(page.locator("#look-shares")).to_contain_text(f"{100 * answer['shares']['40']:.1f}% of at least 40")


def test_a_view_that_does_not_work_for_a_run_says_why(open_page, site: Site) -> None:
    page = open_page(site)
    run = next(each for each in site.ask("runs")["runs"] if each["name"] == "bigram")
    look(page, "bigram")
    for name in ("attention", "lens"):
        reason = page.locator(f"#look-{name}-reason").text_content() or ""
        assert reason.lower() == run["views"][name].lower() + "."
    expect(page.get_by_role("switch")).to_have_count(0)
    expect(page.locator(".lens:visible")).to_have_count(0)
    expect(page.get_by_label("attention", exact=True)).to_be_disabled()


def test_the_arrow_keys_move_between_tokens(open_page, site: Site) -> None:
    page = open_page(site)
    look(page)
    page.locator("#look-tokens [role=listbox]").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    place = TEXT.index("\n") + 1 + 2  # the third character of the second line
    expect(page.locator("#look-details")).to_contain_text(f"Token {place + 1}, “{TEXT[place]}”")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#look-details")).to_contain_text("Token 3, ")

"""The view Write: streaming, stopping, branches, alternatives, two runs side by side."""

import math
import re

import pytest
from browser import Site
from playwright.sync_api import Locator, Page, Route, expect

pytestmark = [pytest.mark.browser, pytest.mark.long]
PROMPT = "KEEPER:\n"


def write(page: Page, tokens: int, prompt: str = PROMPT, run: str = "trained") -> Locator:
    """Let a run write, and return what the page shows of it."""
    page.locator("#write-run").select_option(run)
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.get_by_role("spinbutton", name="Tokens").fill(str(tokens))
    page.locator("#write-start").click()
    writer = page.locator(".writer").first
    expect(writer.locator(".writer-message")).to_have_text(f"{tokens} tokens written.")
    return writer


def read_text(writer: Locator) -> str:
    """Return the text on the page, without the marks of line ends."""
    return "".join(writer.get_by_role("option").all_text_contents()).replace("↵", "")


def format_percent(probability: float) -> str:
    """Return a probability as the page shows it."""
    percent = probability * 100
    if percent == 0:
        return "0%"
    if percent < 0.01:
        return "<0.01%"
    return f"{percent:.0f}%" if percent >= 99.95 else f"{percent:.1f}%" if percent >= 1 else f"{percent:.2f}%"


def test_the_same_seed_writes_the_same_text_and_another_one_another(open_page, site: Site) -> None:
    page = open_page(site)
    first = read_text(write(page, 60))
    assert first.startswith(PROMPT)
    assert read_text(write(page, 60)) == first
    page.get_by_role("spinbutton", name="Seed").fill("2")
    assert read_text(write(page, 60)) != first


def test_every_token_names_its_probability_and_is_shaded_by_it(open_page, site: Site) -> None:
    options = write(open_page(site), 20).get_by_role("option")
    titles = [option.get_attribute("title") or "" for option in options.all()]
    assert titles[: len(PROMPT)] == ["a token of the prompt"] * len(PROMPT)
    assert titles[-1] == "end of the text"
    assert all(re.fullmatch(r"[<\d.]+%, rank \d+", title) for title in titles[len(PROMPT) : -1])
    shades = options.evaluate_all("tokens => tokens.map(token => token.style.getPropertyValue('--shade'))")
    assert shades[: len(PROMPT)] == [""] * len(PROMPT)
    percents = [float(title.split("%")[0].lstrip("<")) for title in titles[len(PROMPT) : -1]]
    wanted = [min(1, -math.log2(percent / 100) / 8) for percent in percents]
    assert [float(shade) for shade in shades[len(PROMPT) : -1]] == pytest.approx(wanted, abs=0.02)


def test_stop_keeps_the_text_and_continue_goes_on(open_page, site: Site) -> None:
    page = open_page(site)
    page.get_by_role("textbox", name="Prompt").fill(PROMPT)
    page.get_by_role("spinbutton", name="Tokens").fill("2000")
    page.locator("#write-run").select_option("hostile tokens")  # has a block_size of 256, so it writes slowly
    page.locator("#write-start").click()
    writer = page.locator(".writer").first
    expect(writer.get_by_role("option").nth(len(PROMPT) + 3)).to_be_attached()
    page.locator("#write-stop").click()
    expect(writer.locator(".writer-message")).to_have_text("Stopped.")
    expect(page.locator("#write-stop")).to_be_disabled()
    before = writer.get_by_role("option").count()
    assert before < 2000
    page.get_by_role("spinbutton", name="Tokens").fill("10")
    writer.get_by_role("button", name="Continue the text").click()
    expect(writer.get_by_role("option")).to_have_count(before + 10)


def test_a_branch_leaves_the_first_text_as_it_was(open_page, site: Site) -> None:
    page = open_page(site)
    writer = write(page, 40)
    first = read_text(writer)
    writer.get_by_role("option").nth(30).click()
    expect(writer.locator(".bars[aria-busy=false] li:visible")).to_have_count(20)
    writer.locator(".bars button[aria-pressed=false]").first.click()
    expect(writer.get_by_role("treeitem")).to_have_count(2)
    expect(writer.locator(".writer-message")).to_have_text("40 tokens written.")
    second = read_text(writer)
    assert second[:30] == first[:30] and second[30] != first[30]

    writer.get_by_role("treeitem").first.click()
    assert read_text(writer) == first
    writer.get_by_role("treeitem").last.click()
    assert read_text(writer) == second
    # The first text's own token leads back to it, and no branch is added.
    writer.get_by_role("option").nth(30).click()
    writer.locator(".bars[aria-busy=false] button").filter(
        has=page.locator(f".bar-label:text-is('{first[30]}')")
    ).click()
    expect(writer.get_by_role("treeitem").first).to_have_attribute("aria-selected", "true")
    expect(writer.get_by_role("treeitem")).to_have_count(2)
    assert read_text(writer) == first


def test_the_bars_are_the_apis_and_follow_the_sliders(open_page, site: Site) -> None:
    page = open_page(site)
    writer = write(page, 30)
    writer.get_by_role("option").nth(20).click()
    context = read_text(writer)[:20]
    sliders = {"temperature": "Temperature", "top_k": "Top-k", "top_p": "Top-p"}
    sampling: dict[str, float] = {"temperature": 1}
    for name, value in (("temperature", 0.5), ("top_k", 6), ("top_p", 0.6)):
        sampling[name] = value
        page.get_by_role("slider", name=sliders[name]).fill(str(value))
        answer = site.ask("next", model="trained", text=context, top=20, **sampling)
        wanted = [
            f"{format_percent(each['probability'])} → {format_percent(each['filtered_probability'])}"
            for each in answer["candidates"]
        ]
        expect(writer.locator(".bars .bar-numbers")).to_have_text(wanted)
        expect(writer.locator(".writer-place")).to_contain_text(f"Entropy: {answer['entropy']:.2f} bits")
    assert wanted[-1].endswith("→ 0%")


def test_a_token_can_be_added_at_the_end(open_page, site: Site) -> None:
    writer = write(open_page(site), 10)
    before = read_text(writer)
    writer.get_by_role("option").last.click()
    bar = writer.locator(".bars[aria-busy=false] button").nth(1)
    chosen = bar.locator(".bar-label").text_content() or ""
    bar.click()
    expect(writer.locator(".writer-message")).to_have_text("10 tokens written.")
    expect(writer.get_by_role("treeitem")).to_have_count(1)
    expect(writer.get_by_role("option")).to_have_count(len(before) + 1 + 10 + 1)
    assert read_text(writer).startswith(before + chosen.replace("␣", " ").replace("↵", "\n"))


def test_the_bars_of_another_place_cannot_be_chosen(open_page, site: Site) -> None:
    page = open_page(site)
    writer = write(page, 30)
    writer.get_by_role("option").nth(20).click()
    expect(writer.locator(".bars[aria-busy=false] li:visible")).to_have_count(20)
    answers: list[Route] = []
    page.route("**/api/v1/next", lambda route: answers.append(route))  # the answer waits
    with page.expect_request("**/api/v1/next"):
        writer.get_by_role("option").nth(25).click()
    expect(writer.locator(".bars")).to_have_attribute("aria-busy", "true")
    writer.locator(".bars button[aria-pressed=false]").first.click()
    expect(writer.get_by_role("treeitem")).to_have_count(1)
    answers[0].continue_()
    expect(writer.locator(".bars")).to_have_attribute("aria-busy", "false")
    writer.locator(".bars button[aria-pressed=false]").first.click()
    expect(writer.get_by_role("treeitem")).to_have_count(2)


def test_two_runs_write_side_by_side(open_page, site: Site) -> None:
    page = open_page(site)
    names = [run["name"] for run in site.ask("runs")["runs"]]
    ngram = next(name for name in names if name.startswith("ngram:"))
    page.locator("#write-second-run").select_option(ngram)
    first = write(page, 25)
    second = page.locator(".writer").nth(1)
    expect(second.locator(".writer-message")).to_have_text("25 tokens written.")
    assert read_text(second).startswith(PROMPT)
    assert read_text(second) != read_text(first)
    second.get_by_role("option").nth(20).click()
    expect(second.locator(".bars[aria-busy=false] li:visible")).to_have_count(20)


def test_a_character_that_the_run_does_not_know_is_named(open_page, site: Site) -> None:
    page = open_page(site, may_be_refused=True)
    page.locator("#write-run").select_option("trained")
    page.get_by_role("textbox", name="Prompt").fill("é")
    page.locator("#write-start").click()
    message = page.locator(".writer-message").first
    expect(message).to_contain_text("'é'")
    expect(message).to_have_class(re.compile("error"))


def test_the_keyboard_reaches_everything(open_page, site: Site) -> None:
    page = open_page(site)
    page.locator("#write-run").select_option("trained")
    page.get_by_role("spinbutton", name="Tokens").fill("30")
    page.get_by_role("textbox", name="Prompt").fill(PROMPT)
    page.get_by_role("textbox", name="Prompt").press("Control+Enter")
    writer = page.locator(".writer").first
    expect(writer.locator(".writer-message")).to_have_text("30 tokens written.")
    first = read_text(writer)
    text = writer.get_by_role("listbox")
    text.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(writer.locator(".token.active")).to_have_attribute("id", re.compile("-11$"))
    assert text.get_attribute("aria-activedescendant") == writer.locator(".token.active").get_attribute("id")
    page.keyboard.press("Enter")
    expect(writer.locator(".bars[aria-busy=false] li:visible")).to_have_count(20)
    for _ in range(40):  # to the bars, past the buttons and the branches
        page.keyboard.press("Tab")
        if page.locator(".bars button:focus").count():
            break
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = page.locator(".bars button:focus")
    label = focused.locator(".bar-label").text_content()
    page.keyboard.press("Enter")
    expect(writer.get_by_role("treeitem")).to_have_count(2)
    expect(writer.locator(".token.selected")).to_have_attribute(
        "aria-label", re.compile(f"^{re.escape(label or '')}, ")
    )
    writer.locator("[role=treeitem][tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    assert read_text(writer) == first
    expect(writer.get_by_role("treeitem").first).to_be_focused()

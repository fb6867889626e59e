"""The view Compare: the table, the losses on the same text, and the curves over one another."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Site, serve_folder
from playwright.sync_api import Page, expect

import minigpt
from minigpt.runs.run import Run

pytestmark = [pytest.mark.browser, pytest.mark.long]


@pytest.fixture(scope="module")
def runs(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs of the same text with different tokens."""
    folder = tmp_path_factory.mktemp("compared")
    settings = {"data": text_file, "max_iters": 40, "eval_interval": 20, "snapshots": 0}
    first = minigpt.train("bigram", out=folder / "chars", **settings)
    return [first, minigpt.train("bigram", out=folder / "pieces", tokenizer="bpe", vocab_size=300, **settings)]


@pytest.fixture(scope="module")
def compared(runs: list[Run]) -> Iterator[Site]:
    with serve_folder(runs[0].path.parent) as site:
        yield site


def open_view(page: Page) -> None:
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#compare-curves .curve")).to_have_count(2)


def row_of(page: Page, name: str) -> list[str]:
    row = page.locator("#compare-table tbody tr").filter(has=page.get_by_label(name, exact=True))
    return row.get_by_role("cell").all_text_contents()


@pytest.mark.parametrize("width", [360, 1440])
def test_runs_are_compared_in_bits_per_byte(open_page, compared: Site, runs: list[Run], width: int) -> None:
    page = open_page(compared, width)
    open_view(page)
    for run in runs:
        cells = row_of(page, run.path.name)
        assert cells[:2] == ["bigram", run.tokenizer.kind] and cells[4] == f"{run.info.bits_per_byte:.4f}"
    expect(page.locator("#compare-curves figcaption")).to_contain_text("Validation loss in bits per byte")
    factor = (runs[1].info.bits_per_byte or 0) / (runs[1].info.validation_loss or 1)
    last = page.locator("#compare-curves .curve").filter(has_text="pieces").locator("title").last
    expect(last).to_have_text(f"pieces at step 40: {runs[1].metrics[-1].validation_loss * factor:.4f}")
    page.locator("#compare-start").click()
    expect(page.locator("#compare-message")).to_contain_text("Measured in bits per byte on 1,9")
    assert row_of(page, "pieces")[5] == f"{runs[1].info.bits_per_byte:.4f}"  # the newest run's split decides
    assert float(row_of(page, "chars")[5]) == pytest.approx(runs[0].info.bits_per_byte or 0, abs=0.1)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_text_of_the_reader_is_measured_by_the_keyboard_alone(open_page, compared: Site, runs: list[Run]) -> None:
    page = open_page(compared)
    open_view(page)
    page.locator("#compare-validation").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#compare-text").fill("the sea Ω")
    page.locator("#compare-start").press("Enter")
    expect(page.locator("#compare-message")).to_contain_text("on 9 characters")
    assert "The character 'Ω'" in row_of(page, "chars")[5]
    assert float(row_of(page, "pieces")[5]) > 0
    page.get_by_label("pieces", exact=True).focus()
    page.keyboard.press("Space")
    expect(page.locator("#compare-curves .curve")).to_have_count(1)
    page.get_by_label("seconds of training").check()
    expect(page.locator("#compare-curves svg text").last).to_have_text("seconds of training")


def test_runs_of_different_texts_need_a_text(open_page, site: Site) -> None:
    page = open_page(site, may_be_refused=True)
    page.get_by_role("tab", name="Compare").click()
    for box in page.locator("#compare-table input").all():
        box.check()
    page.locator("#compare-start").click()
    expect(page.locator("#compare-message")).to_have_class("error")

"""The view Runs: the table is the API's, a click shows the curve, another one chooses the run to write with."""

import pytest
from browser import Site
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.long]


def test_the_table_shows_every_run(open_page, site: Site) -> None:
    page = open_page(site)
    page.get_by_role("tab", name="Runs").click()
    runs = site.ask("runs")["runs"]
    expect(page.locator("#runs-table tbody tr")).to_have_count(len(runs))
    place = next(number for number, run in enumerate(runs) if run["name"] == "trained")
    cells = page.locator("#runs-table tbody tr").nth(place).get_by_role("cell").all_text_contents()
    run = runs[place]
    assert cells[:3] == [run["kind"], f"{run['bits_per_byte']:.4f}", f"{run['validation_loss']:.4f}"]
    assert cells[4] == f"{run['steps']:,}"
    assert cells[6] == "finished"


def test_a_broken_run_shows_its_error(open_page, site: Site) -> None:
    page = open_page(site)
    page.get_by_role("tab", name="Runs").click()
    error = next(run["error"] for run in site.ask("runs")["runs"] if run["name"] == "broken")
    row = page.locator("#runs-table tbody tr").filter(has_text="broken")
    expect(row.locator(".error")).to_contain_text(error[1:])
    assert page.locator("#write-run option[value=broken]").count() == 0


def test_a_click_shows_the_loss_curve(open_page, site: Site) -> None:
    page = open_page(site)
    page.get_by_role("tab", name="Runs").click()
    page.locator("#runs-table").get_by_role("button", name="trained", exact=True).click()
    metrics = site.ask("runs/trained/metrics")
    expect(page.locator(".curve-0 circle")).to_have_count(len(metrics["metrics"]))
    last = metrics["metrics"][-1]
    title = page.locator(".curve-0 circle title").last.text_content()
    assert title == f"validation at step {last['step']:,}: {last['validation_loss']:.4f}"
    page.set_viewport_size({"width": 360, "height": 900})
    box = page.locator(".curves").bounding_box()
    assert box is not None and 1.5 < box["width"] / box["height"] < 4  # it keeps its shape in a window made narrower
    page.get_by_text("Texts that the run wrote").click()
    expect(page.locator("#runs-snapshots li")).to_have_count(len(metrics["snapshots"]))


def test_the_write_button_chooses_the_run(open_page, site: Site) -> None:
    page = open_page(site)
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("button", name="Write with bigram").click()
    expect(page.get_by_role("tab", name="Write")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#write-run")).to_have_value("bigram")
    expect(page.get_by_role("textbox", name="Prompt")).to_be_focused()


def test_an_n_gram_model_has_no_curve(open_page, site: Site) -> None:
    page = open_page(site)
    page.get_by_role("tab", name="Runs").click()
    page.locator("#runs-table").get_by_role("button", name="ngram:", exact=False).first.click()
    expect(page.locator("#runs-metrics-message")).to_contain_text("An n-gram model counts")
    expect(page.locator(".curves")).to_have_count(0)

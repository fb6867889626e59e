"""The view Train: start a training, watch it, stop it, resume it; what the trainings of others show is text."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Site, serve_folder
from conftest import TINY
from playground_runs import HOSTILE_NAME
from playwright.sync_api import Page, expect

from minigpt.runs.run import Run

pytestmark = [pytest.mark.browser, pytest.mark.long]
START_PATIENCE = 120_000  # milliseconds: a new process imports PyTorch
HOSTILE_TEXT = "<img src=x onerror=alert(1)>\u202e</pre><b>"


@pytest.fixture
def empty_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server without any run."""
    monkeypatch.setenv("MINIGPT_KERNELS", "off")
    with serve_folder(tmp_path / "runs") as site:
        yield site


def fill_settings(page: Page, **settings: object) -> None:
    for name, value in settings.items():
        page.locator(f"#setting-{name}").fill(str(value))


# The page is closed before its server ends, since pytest ends the later fixture first.
def test_a_training_is_started_watched_stopped_and_resumed(empty_site: Site, open_page, text: str) -> None:
    page = open_page(empty_site, may_be_refused=True)
    expect(page.get_by_role("tabpanel", name="Train")).to_be_visible()  # there is no run to write with
    expect(page.locator("#train-preset option")).to_have_count(7)
    expect(page.locator("#setting-max_iters")).to_have_attribute("placeholder", "5000")
    page.locator("#train-text").select_option(label="a new text: paste it, or choose a file")
    page.locator("#train-paste").fill(text)
    shape = {name: TINY[name] for name in ("n_embd", "n_head", "block_size", "batch_size")}
    fill_settings(page, **shape, n_layer=1, max_iters=200_000, eval_interval=50)
    page.get_by_text("All settings").click()
    fill_settings(page, eval_windows=8)
    page.locator("#train-name").fill("mine")
    page.locator("#train-name").press("Enter")
    expect(page.locator("#train-heading")).to_have_text("mine")
    expect(page.locator("#train-heading")).to_be_focused()
    expect(page.locator("#train-form")).to_be_hidden()
    state = page.locator("#train-state")
    expect(state).to_contain_text("The training runs.", timeout=START_PATIENCE)
    expect(page.locator("#train-curves .curve-0 circle").nth(2)).to_be_attached(timeout=START_PATIENCE)
    expect(page.locator("#train-steps")).to_contain_text("of 200,000, about")
    expect(page.locator("#train-samples li").first).to_contain_text("Step")
    expect(page.locator("#train-ngram")).to_contain_text("which only counts", timeout=START_PATIENCE)
    expect(page.locator("#train-curves .level")).to_have_count(1)
    page.get_by_text("What the training prints").click()
    expect(page.locator("#train-output pre")).to_contain_text("$ minigpt train --preset lecture --data")

    page.locator("#train-stop").focus()
    page.keyboard.press("Space")
    expect(state).to_contain_text("The training was stopped, and is saved.", timeout=START_PATIENCE)
    expect(state).to_contain_text("bits per byte")
    assert page.locator("#write-run option").all_text_contents() == ["mine", "ngram:mine"]
    step = empty_site.ask("trainings/mine")["metrics"][-1]["step"] + 100
    page.locator("#train-resume-steps").fill(str(step))
    page.locator("#train-resume").click()
    expect(state).to_contain_text("The training is finished.", timeout=START_PATIENCE)
    expect(page.locator("#train-steps")).to_have_text(f"Step {step:,} of {step:,}")
    page.locator("#train-resume").click()
    expect(page.locator("#train-message")).to_contain_text(f"give max_iters above {step}")


def test_a_wrong_setting_is_answered_in_one_sentence(open_page, small_site: Site) -> None:
    page = open_page(small_site, may_be_refused=True)
    page.get_by_role("tab", name="Train").click()
    message = page.locator("#train-form-message")
    fill_settings(page, n_head=3)
    page.locator("#train-start").click()
    expect(message).to_have_text(
        "N_embd must be divisible by n_head, but 64 is not divisible by 3: change one of them."
    )
    fill_settings(page, n_head="", dropout=1)
    page.locator("#train-forecast").click()
    expect(message).to_contain_text("Dropout must be a number")
    page.locator("#train-name").fill("../elsewhere")
    fill_settings(page, dropout="")
    page.locator("#train-start").click()
    expect(message).to_contain_text("and begin with a letter or a digit")
    page.locator("#train-text").select_option(index=1)
    page.locator("#train-start").click()
    expect(message).to_have_text("The new text is empty: paste a text, or choose a file.")


def test_another_preset_changes_the_values_and_the_name(open_page, small_site: Site) -> None:
    page = open_page(small_site)
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#train-name")).to_have_value("lecture")
    page.locator("#train-preset").select_option("bigram")
    expect(page.locator("#train-name")).to_have_value("bigram")
    expect(page.locator("#train-about")).to_contain_text("the baseline")
    expect(page.locator("#setting-max_iters")).to_have_attribute("placeholder", "3000")
    expect(page.locator("#setting-architecture option").first).to_have_text("bigram (preset)")


@pytest.mark.parametrize("width", [360, 1440])
def test_names_samples_errors_and_output_are_text(open_page, trained: Run, tmp_path: Path, width: int) -> None:
    run = tmp_path / HOSTILE_NAME
    shutil.copytree(trained.path, run)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "status": "interrupted"}))
    sample = {"step": 0, "validation_loss": 1.0, "text": HOSTILE_TEXT}
    (run / "snapshots.jsonl").write_text(json.dumps(sample) + "\n")
    logs = tmp_path / "playground" / "logs"
    logs.mkdir(parents=True)
    (logs / f"{HOSTILE_NAME}.log").write_text(f"step 1\nminigpt: {HOSTILE_TEXT}\n")
    with serve_folder(tmp_path) as site:
        page = open_page(site, width)
        page.get_by_role("tab", name="Train").click()
        expect(page.locator("#train-heading")).to_have_text("<img src=x onerror=alert(1)>⟨U+202E⟩txt")
        expect(page.locator("#train-error")).to_contain_text("<img src=x onerror=alert(1)>")
        expect(page.locator("#train-samples li")).to_contain_text("<img src=x onerror=alert(1)>⟨U+202E⟩</pre><b>")
        page.get_by_text("What the training prints").click()
        expect(page.locator("#train-output pre")).to_contain_text("minigpt: <img src=x onerror=alert(1)>")
        expect(page.locator("#train-curves .curves")).to_be_visible()
        assert page.locator("img, main script, b").count() == 0
        assert "\u202e" not in page.evaluate("document.body.innerText")
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_server_is_asked_only_while_the_view_is_shown(open_page, small_site: Site) -> None:
    page = open_page(small_site)
    page.clock.install()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#train-heading")).to_have_text("trained")
    asked.clear()
    with page.expect_request("**/api/v1/trainings"):
        page.clock.run_for(6000)
    page.get_by_role("tab", name="Write").click()
    page.clock.run_for(6000)  # what was under way ends
    asked.clear()
    page.clock.run_for(60_000)
    assert not [url for url in asked if "trainings" in url]

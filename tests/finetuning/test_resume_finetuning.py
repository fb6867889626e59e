"""A fine-tuning that is killed goes on with the same bits, and finds its base and its data again or asks for them."""

import json
import logging
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import fault_injection
import pytest
from fault_injection import FINE_TUNINGS

from minigpt.errors import DataError, InputError, RunError
from minigpt.finetuning.resume_finetuning import resume_finetuning
from minigpt.runs.run_directory import RunDirectory


@pytest.fixture(scope="module")
def folder(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, a base that follows instructions, and the data of each kind of fine-tuning."""
    folder = tmp_path_factory.mktemp("bases")
    fault_injection.make_bases(folder, text)
    return folder


SHORT = ("text-full", "sft-lora", "dpo-qlora")  # each of the three trainings, and each way to train the weights
ALL_KINDS = [kind if kind in SHORT else pytest.param(kind, marks=pytest.mark.long) for kind in FINE_TUNINGS]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_killed_fine_tuning_goes_on_with_the_same_bits(kind: str, folder: Path, tmp_path: Path) -> None:
    fine_tuning = fault_injection.fine_tuning(folder, kind)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert fine_tuning.finish(whole, (0, "count")) == 0
    operations = int((whole / "operations").read_text())
    for at in (
        round(0.6 * operations),
        round(0.3 * operations),
    ):  # the second kill strikes in the part that was resumed
        assert fine_tuning.finish(killed, (at, "kill")) == -signal.SIGKILL
    assert fine_tuning.finish(killed) == 0
    never_stopped = fault_injection.story(whole / "run")
    assert fault_injection.story(killed / "run") == never_stopped
    assert ("tasks.jsonl" in never_stopped) == kind.startswith(("sft", "tasks"))
    assert ("adapter/adapter_model.safetensors" in never_stopped) == kind.endswith("lora")


@pytest.mark.long
def test_a_fine_tuning_killed_at_random_moments_goes_on_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    fine_tuning = fault_injection.fine_tuning(folder, "sft-lora")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert fine_tuning.finish(whole) == 0
    assert fine_tuning.kill(killed, random.Random(0))
    assert fine_tuning.finish(killed) == 0
    assert fault_injection.story(killed / "run") == fault_injection.story(whole / "run")


def change_record(run: Path, **changes: str) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | changes))


@pytest.fixture
def make_unfinished(folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A function that returns a run of some kind that ended before its run.json said so."""

    def stop(kind: str) -> Path:
        assert fault_injection.fine_tuning(folder, kind).finish(tmp_path) == 0
        change_record(tmp_path / "run", status="unfinished")
        return tmp_path / "run"

    return stop


def test_a_moved_base_is_asked_for_and_another_one_is_refused(
    make_unfinished: Callable[[str], Path], folder: Path, tmp_path: Path
) -> None:
    run = make_unfinished("text-lora")
    change_record(run, base=str(tmp_path / "gone"))
    with pytest.raises(RunError, match=r"the base run .* is not there: name it with base=…"):
        resume_finetuning(run)
    with pytest.raises(RunError, match="is not the base that was fine-tuned, its weights differ: name it with base=…"):
        resume_finetuning(run, base=folder / "instructed")
    moved = shutil.copytree(folder / "base", tmp_path / "moved")
    assert resume_finetuning(run, base=moved).run.info.base == str(moved)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("text-lora", "other.txt", "is not the text|was trained on other data"),
        ("sft-lora", "other.txt", "which is missing or has changed: name it with data=…"),
        ("sft-lora", "pairs.jsonl", "has none of messages"),
    ],
)
def test_other_data_are_refused(
    kind: str, changed: str, message: str, make_unfinished: Callable[[str], Path], folder: Path
) -> None:
    with pytest.raises(DataError, match=message):
        resume_finetuning(make_unfinished(kind), data=folder / changed)


def test_the_recorded_examples_are_opened_only_if_they_have_their_size(
    make_unfinished: Callable[[str], Path], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_unfinished("sft-lora")
    content = json.loads((run / "finetuning.json").read_text())
    other = tmp_path / "other.jsonl"
    other.write_bytes(Path(content["data"]).read_bytes() + b"\n")
    for path, message in ((other, "is not the text that"), ("/dev/zero", "is a pipe, a device or a folder")):
        (run / "finetuning.json").write_text(json.dumps(content | {"data": str(path)}))
        with pytest.raises(InputError, match=message):
            resume_finetuning(run)
    (run / "finetuning.json").write_text(json.dumps(content))
    with caplog.at_level(logging.INFO, "minigpt"):
        resume_finetuning(run)
    base = json.loads((run / "run.json").read_text())["base"]
    assert f"opening {base!r}, which the fine-tuned run names as its base" in caplog.messages
    assert f"reading {content['data']!r}, which {str(run)!r} names" in caplog.messages


def test_a_finished_fine_tuning_can_be_made_longer(folder: Path, tmp_path: Path) -> None:
    assert fault_injection.fine_tuning(folder, "text-lora").finish(tmp_path) == 0
    with pytest.raises(RunError, match="is finished after 12 steps: choose a larger max_iters"):
        resume_finetuning(tmp_path / "run")
    assert resume_finetuning(tmp_path / "run", max_iters=15).run.info.step == 15


def test_a_fine_tuning_that_another_process_trains_cannot_be_resumed(make_unfinished: Callable[[str], Path]) -> None:
    run = make_unfinished("text-full")
    with RunDirectory(run).lock(), pytest.raises(RunError, match="another process is training"):
        resume_finetuning(run)


def test_what_was_not_fine_tuned_is_refused(folder: Path) -> None:
    with pytest.raises(RunError, match="was not fine-tuned, so there is no fine-tuning to resume"):
        resume_finetuning(folder / "base")

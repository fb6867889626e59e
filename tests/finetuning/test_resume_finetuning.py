"""A fine-tuning that is killed goes on with the same bits, and finds its base and its data again or asks for them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fault_injection
import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

import minigpt
from minigpt.errors import DataError, RunError
from minigpt.finetuning.resume_finetuning import resume_finetuning
from minigpt.finetuning.sft import train_sft
from minigpt.runs.run_directory import RunDirectory

KINDS = ["text-full", "text-lora", "text-qlora", "sft-full", "sft-lora", "tasks-lora", "dpo-full", "dpo-qlora"]


@pytest.fixture(scope="module")
def folder(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, a base that follows instructions, and the data of each kind of fine-tuning."""
    folder = tmp_path_factory.mktemp("bases")
    shutil.copy(text_file, folder / "text.txt")
    (folder / "other.txt").write_text(text_file.read_text()[::-1])
    questions = [{"instruction": f"{n}", "output": "ab"[n % 2]} for n in range(60)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    pairs = [{"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(60)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in pairs))
    settings = TINY | {"block_size": 32, "max_iters": 10, "eval_interval": 10, "device": "cpu", "dropout": 0.1}
    minigpt.train(data=folder / "text.txt", out=folder / "base", **settings)
    train_sft(minigpt.load(folder / "base"), folder / "questions.jsonl", out=folder / "instructed", max_iters=4)
    return folder


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run and of its adapter, by file and name."""
    files = [path for path in run.rglob("*.safetensors") if "checkpoints" not in path.parts]
    return {f"{path.relative_to(run)} {name}": tensor for path in files for name, tensor in load_file(path).items()}


def start(folder: Path, tmp_path: Path, kind: str, fault: tuple[int, str] | None = None) -> int | None:
    """Fine-tune in a process of its own, or resume the run in `tmp_path`; return the exit status."""
    target = fault_injection.finetune_or_resume
    process = fault_injection.PROCESSES.Process(target=target, args=(folder, tmp_path, kind, fault))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_fine_tuning_goes_on_with_the_same_bits(kind: str, folder: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert start(folder, whole, kind, (0, "count")) == 0
    operations = int((whole / "operations").read_text())
    for share in (0.6, 0.9):  # of the operations; the second kill strikes in the part that was resumed
        assert start(folder, killed, kind, (round(share * operations / (1 if share < 0.9 else 3)), "kill")) != 0
    assert start(folder, killed, kind) == 0
    first, second = (RunDirectory(path / "run") for path in (whole, killed))
    weights, others = (load_weights(each.path) for each in (first, second))
    assert weights.keys() == others.keys()
    assert not [name for name in weights if not weights[name].equal(others[name])]
    losses = [
        [(m.step, m.train_loss, m.validation_loss) for m in each.read_metrics(each.read_record())]
        for each in (first, second)
    ]
    assert losses[0] == losses[1]
    assert first.read_record().validation_loss == second.read_record().validation_loss
    assert first.task_log.exists() == kind.startswith(("sft", "tasks"))
    if first.task_log.exists():
        assert first.task_log.read_text() == second.task_log.read_text()


def change_record(run: Path, **changes: str) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | changes))


@pytest.fixture
def make_unfinished(folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A function that returns a run of some kind that ended before its record said so."""

    def stop(kind: str) -> Path:
        assert start(folder, tmp_path, kind) == 0
        change_record(tmp_path / "run", status="unfinished")
        return tmp_path / "run"

    return stop


def test_a_moved_base_is_asked_for_and_another_one_is_refused(
    make_unfinished: Callable[[str], Path], folder: Path, tmp_path: Path
) -> None:
    run = make_unfinished("text-lora")
    change_record(run, base=str(tmp_path / "gone"))
    with pytest.raises(RunError, match=r"the base run .* is not there: name it with --base"):
        resume_finetuning(run)
    with pytest.raises(RunError, match="is not the base that was fine-tuned, its weights differ: name it with --base"):
        resume_finetuning(run, base=folder / "instructed")
    moved = shutil.copytree(folder / "base", tmp_path / "moved")
    assert resume_finetuning(run, base=moved).run.record.base == str(moved)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("text-lora", "other.txt", "is not the text|are not what"),
        ("sft-lora", "other.txt", "which is missing or has changed: name it with --data"),
        ("sft-lora", "pairs.jsonl", "neither instruction and output nor messages"),
    ],
)
def test_other_data_are_refused(
    kind: str, changed: str, message: str, make_unfinished: Callable[[str], Path], folder: Path
) -> None:
    with pytest.raises(DataError, match=message):
        resume_finetuning(make_unfinished(kind), data=folder / changed)


def test_a_finished_fine_tuning_can_be_made_longer(folder: Path, tmp_path: Path) -> None:
    assert start(folder, tmp_path, "text-lora") == 0
    with pytest.raises(RunError, match="is finished after 12 steps: choose a larger max_iters"):
        resume_finetuning(tmp_path / "run")
    assert resume_finetuning(tmp_path / "run", max_iters=15).run.record.step == 15


def test_a_fine_tuning_that_another_process_trains_cannot_be_resumed(make_unfinished: Callable[[str], Path]) -> None:
    run = make_unfinished("text-full")
    with RunDirectory(run).lock(), pytest.raises(RunError, match="another process is training"):
        resume_finetuning(run)


def test_what_was_not_fine_tuned_is_refused(folder: Path) -> None:
    with pytest.raises(RunError, match="was not fine-tuned, so there is no fine-tuning to resume"):
        resume_finetuning(folder / "base")

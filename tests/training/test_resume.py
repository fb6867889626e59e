"""A training that was stopped, in whatever way, resumes with the bits of one that was not."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_injection
import pytest
import torch
from cli_process import COMMAND, CommandProcess
from conftest import TINY, TINY_FLAGS

import minigpt
from minigpt.config import Config
from minigpt.errors import ConfigError, FileError, RunError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.checkpoint_format import MARKER
from minigpt.training.learning_rate import get_learning_rate
from minigpt.training.resume import resume


@pytest.fixture(scope="module")
def settings(text_file: Path) -> dict[str, Any]:
    return fault_injection.SETTINGS | {"data": text_file}


@pytest.fixture(scope="module")
def never_stopped(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    assert fault_injection.training(settings).finish(folder) == 0
    return fault_injection.story(folder / "run")


def check_resumed(folder: Path, settings: dict[str, Any], never_stopped: dict[str, Any]) -> None:
    """The run resumes, and becomes what it would have been."""
    assert fault_injection.training(settings).finish(folder) == 0, (folder / "errors.txt").read_text()
    assert fault_injection.story(folder / "run") == never_stopped
    assert not list((folder / "run").rglob("*.tmp"))
    minigpt.load(folder / "run")


@pytest.mark.long
def test_a_training_killed_at_random_moments_resumes_with_the_same_bits(
    settings: dict[str, Any], never_stopped: dict[str, Any], tmp_path: Path
) -> None:
    kills, seconds = 0, fault_injection.MAX_KILL_SECONDS
    while not kills:  # a fast machine may finish the training before it is killed
        folder = tmp_path / f"within {seconds} s"
        folder.mkdir()
        kills = fault_injection.training(settings).kill(folder, random.Random(0), seconds)
        seconds /= 2
    check_resumed(folder, settings, never_stopped)


@pytest.fixture(scope="module")
def operations(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> int:
    """The number of writes, flushes, renames and removals of such a training."""
    folder = tmp_path_factory.mktemp("count")
    assert fault_injection.training(settings).finish(folder, (0, "count")) == 0
    return int((folder / "operations").read_text())


@pytest.mark.parametrize(  # benchmarks/soak.py stops a training at every write in both ways
    ("share", "how"),
    [(0.35, "fail"), (0.95, "kill")]
    + [pytest.param(*stop, marks=pytest.mark.long) for stop in ((0.15, "kill"), (0.5, "kill"), (0.7, "fail"))],
)
def test_a_training_killed_or_refused_at_a_write_resumes_with_the_same_bits(
    how: str, share: float, operations: int, settings: dict[str, Any], never_stopped: dict[str, Any], tmp_path: Path
) -> None:
    code = fault_injection.training(settings).finish(tmp_path, (round(share * operations), how))
    assert code == (-signal.SIGKILL if how == "kill" else 2)
    if how == "fail":
        assert "the disk is full" in (tmp_path / "errors.txt").read_text()
    check_resumed(tmp_path, settings, never_stopped)


def test_checkpoints_at_every_step_do_not_change_the_run(
    settings: dict[str, Any], never_stopped: dict[str, Any], operations: int, tmp_path: Path
) -> None:
    often = settings | {"save_minutes": 1e-9}
    assert fault_injection.training(often).finish(tmp_path, (operations, "kill")) == -signal.SIGKILL
    checkpoints = CheckpointDirectory(tmp_path / "run")
    assert checkpoints.open_newest().metadata.step % 6  # between evaluations
    assert len(checkpoints.list_paths()) <= 3
    assert fault_injection.training(often).finish(tmp_path) == 0
    story = fault_injection.story(tmp_path / "run")
    assert {**story, "config.toml": None} == {**never_stopped, "config.toml": None}


def test_a_checkpoint_does_not_make_a_run_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot make the directory"):
        CheckpointDirectory(tmp_path / "moved").create(20)
    assert not list(tmp_path.iterdir())
    (tmp_path / "run").mkdir()
    assert CheckpointDirectory(tmp_path / "run").create(20).is_dir()


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in ("99999999", "100000000", "00000002", "²"):  # the last is a digit, but not a number
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
        (tmp_path / "checkpoints" / step / MARKER).touch()
    assert [path.name for path in CheckpointDirectory(tmp_path).list_paths()] == ["100000000", "99999999", "00000002"]


def stop_by_signal(text_file: Path, folder: Path, number: int, *flags: str) -> tuple[int, str]:
    """Stop a training by the command with a signal after 50 steps; its exit status and messages."""
    words = ["train", *TINY_FLAGS, "--dropout", "0.1", "--out", "run", "--data", text_file, *flags]
    process = CommandProcess(words, folder, stdout=subprocess.DEVNULL)
    for line in process.stderr:
        if line.split()[:1] == ["50"]:
            break
    process.send_signal(number)
    return process.wait(60), process.stderr.read()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=lambda n: str(int(n)))
def test_a_training_stopped_by_a_signal_resumes_with_the_same_bits(
    number: int, status: int, text_file: Path, command: Callable, tmp_path: Path
) -> None:
    long = ["--max-iters", "200", "--eval-interval", "50", "--n-layer", "1", "--snapshots", "0"]
    code, said = stop_by_signal(text_file, tmp_path, number, *long)
    assert code == status, said
    assert "minigpt train --resume run" in said
    run = minigpt.load(tmp_path / "run")
    assert run.info.status == "interrupted"
    assert run.evaluate().loss == pytest.approx(run.info.validation_loss, rel=1e-6)
    assert [metrics.step for metrics in run.metrics] == [0, 50]  # that made on stopping is not among them
    again = command("train", "--out", "run", "--data", text_file, *TINY_FLAGS, "--max-iters", "1", "--json")
    assert f"run is not finished; to resume: {os.path.relpath(COMMAND, tmp_path)} train --resume run" in again.stderr
    if number == signal.SIGINT:
        done = command("train", "--resume", "run", "--json")
        assert done.returncode == 0, done.stderr
        whole = minigpt.train(
            data=text_file,
            out=tmp_path / "whole",
            device="cpu",
            **TINY | {"max_iters": 200, "eval_interval": 50, "n_layer": 1, "snapshots": 0, "dropout": 0.1},
        )
        assert (whole.path / "model.safetensors").read_bytes() == (tmp_path / "run/model.safetensors").read_bytes()
        assert json.loads(done.stdout)["validation_loss"] == pytest.approx(whole.info.validation_loss, rel=1e-6)


@pytest.fixture
def finished(trained: Run, tmp_path: Path) -> Path:
    shutil.copytree(trained.path, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_can_be_made_longer(finished: Path) -> None:
    longer = resume(finished, max_iters=100, eval_interval=10)
    assert [metrics.step for metrics in longer.metrics] == [0, 20, 40, 60, 70, 80, 90, 100]
    assert longer.info.status == "finished"
    assert longer.info.validation_loss < minigpt.load(finished, weights="best").info.validation_loss + 1
    assert minigpt.load(finished).config.training.schedule_end == 60
    assert resume(finished, max_iters=100).info == longer.info
    with pytest.raises(ConfigError, match="is at step 100 of 90 already"):
        resume(finished, max_iters=90)


def test_resuming_a_finished_run_says_that_it_is_finished(finished: Path, command: Callable) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    done = command("train", "--resume", finished)
    assert done.returncode == 0, done.stderr
    loss = minigpt.load(finished).info.validation_loss
    assert f"the run is finished after 60 steps: validation loss {loss:.4f} nats per character" in done.stdout
    assert f"train --resume {finished} --max-iters 120" in done.stdout
    assert f"sample {finished}" in done.stdout
    assert json.loads(command("train", "--resume", finished, "--json").stdout)["step"] == 60
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "kind",
    [{"dropout": 0.1}, {"architecture": "modern", "dropout": 0.1}, {"compiled_loops": "on"}],
    ids=["gpt", "modern", "compiled loops"],
)
def test_muon_resumes_with_the_same_bits(kind: dict[str, Any], text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {
        **kind,
        "optimizer": "muon",
        "max_iters": 24,
        "snapshots": 0,
    }
    whole = minigpt.train(data=text_file, out=tmp_path / "whole", **settings)
    minigpt.train(data=text_file, out=tmp_path / "parts", **settings | {"max_iters": 11})
    parts = resume(tmp_path / "parts", max_iters=24)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], tensor), name


def test_new_steps_have_the_last_rate_or_the_whole_schedule_again() -> None:
    before = Config().override(schedule="cosine", max_iters=100, warmup_iters=10).training
    after = Config().override(schedule="cosine", max_iters=150, warmup_iters=10, schedule_end=100).training
    anew = Config().override(schedule="cosine", max_iters=150, warmup_iters=10, schedule_start=100).training
    assert [get_learning_rate(n, after) for n in range(100)] == [get_learning_rate(n, before) for n in range(100)]
    assert {get_learning_rate(n, after) for n in range(99, 150)} == {get_learning_rate(99, before)}
    assert [get_learning_rate(n, anew) for n in range(100, 110)] == [get_learning_rate(n, before) for n in range(10)]
    assert get_learning_rate(110, anew) == before.learning_rate
    assert get_learning_rate(149, anew) < before.learning_rate / 100


def test_a_broken_checkpoint_is_named_and_the_one_before_it_is_used(
    finished: Path, capfd: pytest.CaptureFixture
) -> None:
    newest, before = CheckpointDirectory(finished).list_paths()
    for name in ("model.safetensors", "training.safetensors", MARKER):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        said: list[str] = []
        assert CheckpointDirectory(finished).open_newest(said.append).path == before
        assert len(said) == 1
        assert name in said[0]
        (newest / name).write_bytes(whole)
    (newest / "model.safetensors").write_bytes(b"")
    assert resume(finished, max_iters=61).info.step == 61
    assert "the checkpoint before it is used" in capfd.readouterr().err
    shutil.rmtree(finished / "checkpoints")
    with pytest.raises(RunError, match="has no checkpoint to resume from"):
        resume(finished, max_iters=99)


def test_changes_that_would_make_another_run_are_refused(finished: Path, command: Callable, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = command("train", "--resume", finished, *arguments)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    assert "n_embd is 16 in this run and cannot be changed" in refused("--n-embd", "32")
    assert "tokenizer is char in this run and cannot" in refused("--tokenizer", "bpe", "--max-iters", "99")
    assert "--preset cannot go with --resume" in refused("--preset", "bigram")
    (tmp_path / "other.txt").write_text("other text " * 2000)
    assert "is not the text that" in refused("--data", "other.txt", "--max-iters", "99")
    assert "--restart-schedule is for --resume" in command("train", "--restart-schedule").stderr
    with RunDirectory(finished).lock():
        assert f"another process is training '{finished}'" in refused("--max-iters", "99")
    assert command("train", "--resume", finished, "--max-iters", "62", "--n-embd", "16", "--json").returncode == 0
    shutil.rmtree(finished / "checkpoints")
    assert "has no checkpoint" in refused("--max-iters", "99")
    assert "there is no run" in command("train", "--resume", "nowhere").stderr


@pytest.mark.long
def test_the_best_weights_outlive_a_checkpoint_between_evaluations(settings: dict[str, Any], tmp_path: Path) -> None:
    fast = settings | {"learning_rate": 1.0, "schedule": "constant"}  # so that it gets worse, on every machine
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert fault_injection.training(fast).finish(tmp_path / "a") == 0
    expected = fault_injection.story(tmp_path / "a/run")
    assert "best.safetensors" in expected
    assert (
        fault_injection.training(fast | {"save_minutes": 1e-9}).finish(tmp_path / "b", (250, "kill")) == -signal.SIGKILL
    )
    assert fault_injection.training(fast | {"save_minutes": 1e-9}).finish(tmp_path / "b") == 0
    assert {**fault_injection.story(tmp_path / "b/run"), "config.toml": None} == {**expected, "config.toml": None}


def test_an_untrusted_run_cannot_make_a_training_write_elsewhere(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (finished / "samples.txt").unlink()
    (finished / "samples.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match=r"samples\.txt' is a link"):
        resume(finished, max_iters=99)
    (finished / "samples.txt").unlink()
    (finished / "checkpoints").rename(tmp_path / "elsewhere")
    (finished / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="checkpoints' is a link"):
        resume(finished, max_iters=99)
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "value"), [("training_seconds", 10**400), ("position", -5), ("step", 10**30), ("skip_positions", "x")]
)
def test_a_checkpoint_with_impossible_numbers_is_broken(name: str, value: object, finished: Path) -> None:
    for path in CheckpointDirectory(finished).list_paths():
        marker = json.loads((path / MARKER).read_text())
        marker["metadata"][name] = value
        (path / MARKER).write_text(json.dumps(marker))
    with pytest.raises(RunError, match="has no checkpoint to resume from"):
        resume(finished, max_iters=99)


def test_a_resumed_training_says_if_its_kernels_are_not_those_of_the_run(
    finished: Path, capfd: pytest.CaptureFixture
) -> None:
    directory = RunDirectory(finished)
    directory.write_info(dataclasses.replace(directory.read_info(), kernels="abacus"))
    resume(finished, max_iters=61)
    assert "was trained with abacus and resumes with" in capfd.readouterr().err
    resume(finished, max_iters=62)
    assert "was trained with" not in capfd.readouterr().err


def test_what_is_not_a_checkpoint_is_left_alone(finished: Path) -> None:
    (finished / "checkpoints" / ".DS_Store").touch()
    (finished / "checkpoints" / "mine").mkdir()
    resume(finished, max_iters=70)
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {".DS_Store", "mine", "00000060", "00000070"}
    assert minigpt.load(finished).config.override(max_iters=5).training.schedule_end == 0

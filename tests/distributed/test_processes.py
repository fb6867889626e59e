"""Training in several processes gives the run of one process; its checkpoints are read by any number of them."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from cli_process import CommandProcess, serve_torchrun
from conftest import TINY_FLAGS
from ddp_worker import EXACT, LONG, OTHERS, PARALLEL, fit_briefly, resume_exactly, train_exactly, work
from fault_injection import PROCESSES
from lazy_module import LazyModule
from safetensors.torch import load_file

from minigpt.runs.run_directory import RunDirectory

accumulators = LazyModule("tensorboard.backend.event_processing.event_accumulator")


def run_two_processes(folder: Path, task: str, *arguments: Path) -> None:
    """Do a task of `ddp_worker.py` in two processes."""
    with serve_torchrun(2) as environments:
        pair = [PROCESSES.Process(target=work, args=(each, folder, task, *arguments)) for each in environments]
        for process in pair:
            process.start()
        for process in pair:
            process.join(300)
        assert [process.exitcode for process in pair] == [0, 0], (folder / "errors-0.txt").read_text()[-3000:]


@pytest.fixture(scope="module")
def runs(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the runs that `ddp_worker.py` makes in two processes, and those of one process."""
    folder = tmp_path_factory.mktemp("pair")
    torch.set_default_dtype(torch.float64)
    try:
        train_exactly(text_file, folder / "alone", **EXACT)
        train_exactly(text_file, folder / "alone-begun", **EXACT | {"max_iters": 2})
        for parallel in PARALLEL:
            shutil.copytree(folder / "alone-begun", folder / f"alone-to-{parallel}")
        run_two_processes(folder, "train_all", folder, text_file)
        for parallel in PARALLEL:
            resume_exactly(folder / f"{parallel}-begun", max_iters=4)
    finally:
        torch.set_default_dtype(torch.float32)
    yield folder


def find_largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference between two numbers of two models."""
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def compare_weights(one: Path, other: Path) -> float:
    """The largest difference between two runs' weights."""
    return find_largest_difference(*(load_file(path / "model.safetensors") for path in (one, other)))


def losses(run: Path) -> list[float]:
    """All losses that a run has measured."""
    folder = RunDirectory(run)
    info = folder.read_info()
    assert info.validation_loss is not None
    found = [loss for m in folder.read_metrics(info) for loss in (m.train_loss, m.validation_loss)]
    return [*found, info.validation_loss]


@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_train_as_one_does(runs: Path, parallel: str) -> None:
    assert compare_weights(runs / "alone", runs / parallel) < 1e-10
    assert losses(runs / parallel) == pytest.approx(losses(runs / "alone"), abs=1e-10)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_in_float32_two_processes_have_the_losses_of_one(runs: Path, text_file: Path, parallel: str) -> None:
    _, alone = fit_briefly(text_file)
    assert len(alone) == 6  # both splits after 0, 2 and 3 steps
    for rank in (0, 1):
        assert json.loads((runs / f"{parallel}-{rank}.json").read_text()) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_two_processes_train_other_models_as_one_does(runs: Path, text_file: Path, name: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        alone, _ = fit_briefly(text_file, **OTHERS[name])
    finally:
        torch.set_default_dtype(torch.float32)
    assert find_largest_difference(alone, load_file(runs / f"{name}.safetensors")) < 1e-10


@pytest.mark.parametrize("parallel", PARALLEL)
def test_one_process_resumes_what_two_began_and_two_what_one_began(runs: Path, parallel: str) -> None:
    assert compare_weights(runs / "alone", runs / f"{parallel}-begun") < 1e-10
    assert compare_weights(runs / "alone", runs / f"alone-to-{parallel}") < 1e-10
    assert list((runs / parallel / "checkpoints").glob("*/shards/*")), "they wrote shards"
    assert not list(runs.glob("**/*.pt")) + list(runs.glob("**/.metadata")), "no pickle"


@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_resume_with_the_same_bits_dropout_included(runs: Path, parallel: str) -> None:
    assert compare_weights(runs / f"{parallel}-random", runs / f"{parallel}-resumed") == 0
    assert losses(runs / f"{parallel}-random") == losses(runs / f"{parallel}-resumed")


@pytest.mark.parametrize("parallel", PARALLEL)
def test_two_processes_write_one_event_file_for_tensorboard(runs: Path, parallel: str) -> None:
    (file,) = RunDirectory(runs / f"{parallel}-random").list_event_files()  # a second process would write its own
    events = accumulators.EventAccumulator(str(file)).Reload()
    assert [event.step for event in events.Scalars("loss/validation")] == [0, 2, 4]


def test_an_error_in_one_process_ends_all_and_is_printed_once_with_its_rank(runs: Path) -> None:
    first, second = (json.loads((runs / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert first.startswith("InputError: rank 1: cannot read")
    assert "nothing.txt" in first
    assert second.startswith("FileError, silent: cannot read")


def start(folder: Path, *arguments: object) -> CommandProcess:
    """`minigpt train` in two processes, about to train."""
    words = ["train", "--processes", 2, *arguments]
    return CommandProcess(words, folder, os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.STDOUT)


def wait_for_checkpoint(run: Path, process: CommandProcess, after: str = "") -> str:
    """Wait until the run has a checkpoint after that one; the name of the newest."""
    while not (
        found := [
            path.parent.name for path in (run / "checkpoints").glob("*/checkpoint.json") if path.parent.name > after
        ]
    ):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return max(found)


def find_workers(process: CommandProcess) -> list[psutil.Process]:
    """The processes that the launcher started, by rank."""
    children = [child for child in psutil.Process(process.pid).children() if "minigpt" in child.cmdline()]
    return sorted(children, key=lambda child: child.environ()["RANK"])


@pytest.mark.long
def test_a_training_that_was_killed_restarted_stopped_and_resumed_has_the_same_bits(
    tmp_path: Path, text_file: Path
) -> None:
    flags = [word for name, value in LONG.items() for word in (f"--{name.replace('_', '-')}", value)]
    run = tmp_path / "run"
    process = start(tmp_path, "--data", text_file, "--out", run, "--max-restarts", 1, *flags)
    last = wait_for_checkpoint(run, process)
    find_workers(process)[1].send_signal(signal.SIGKILL)
    wait_for_checkpoint(run, process, last)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 143, said
    assert "Traceback" not in said
    _, resumed, after = said.partition("resumed after step")
    assert resumed
    assert after.count("stopping: evaluating and saving") == 1  # before it, the launcher may have stopped process 0
    assert RunDirectory(run).read_info().status == "interrupted"
    last = max(path.parent.name for path in run.glob("checkpoints/*/checkpoint.json"))

    process = start(tmp_path, "--resume", run)
    wait_for_checkpoint(run, process, last)
    find_workers(process)[0].send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "minigpt: process 0 was killed by SIGKILL: minigpt train --resume continues from the last checkpoint" in said
    assert RunDirectory(run).read_info().status == "unfinished"

    run_two_processes(tmp_path, "resume_run", run)
    run_two_processes(tmp_path, "train_long", tmp_path / "never-stopped", text_file)
    assert compare_weights(tmp_path / "never-stopped", run) == 0
    assert losses(tmp_path / "never-stopped") == losses(run)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"run", "never-stopped"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", 1], "2 processes cannot share a batch_size of 1: choose at least 2"),
        (["--n-head", 3], "n_embd"),
    ],
)
def test_settings_that_processes_cannot_share_are_refused_in_one_sentence(
    arguments: list[Any], message: str, tmp_path: Path, text_file: Path, command: Callable
) -> None:
    done = command("train", "--data", text_file, "--processes", 2, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("minigpt:")]) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-minutes", "1"], "max_minutes is measured on one process: set max_iters for several"),
        (["--parallel", "fsdp", "--optimizer", "muon"], "but fsdp splits them: choose --parallel ddp"),
    ],
)
def test_the_first_process_prints_the_error_of_all(
    arguments: list[str], message: str, tmp_path: Path, text_file: Path
) -> None:
    words = ["train", "--data", text_file, "--out", tmp_path / "run", *TINY_FLAGS, *arguments]
    with serve_torchrun(2) as environments:
        pair = [CommandProcess(words, tmp_path, os.environ | each) for each in environments]
        (shown, said), (shown_by_second, said_by_second) = (process.communicate() for process in pair)
    assert [process.returncode for process in pair] == [2, 2], said
    assert message in said.splitlines()[-1]
    assert shown + shown_by_second + said_by_second == ""
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_other_commands_refuse_several_processes(command: Callable) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    done = command("sample", env=environment)
    assert (done.returncode, done.stderr) == (
        2,
        "minigpt: minigpt sample runs in one process: start it without torchrun\n",
    )
    assert command("sample", env=environment | {"RANK": "1"}).stderr == ""

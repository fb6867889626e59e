"""Files, disks and terminals that vanish while a model trains."""

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_process import CommandProcess
from conftest import TINY, TINY_FLAGS

import minigpt
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.resume import resume


@pytest.fixture
def long_run(text_file: Path, tmp_path: Path) -> Iterator[CommandProcess]:
    """A training by the command, after its evaluation at step 40; it runs until it is stopped."""
    process = start(text_file, "run", tmp_path)
    yield process
    process.kill()
    process.communicate()


def start(text_file: Path, run: object, folder: Path) -> CommandProcess:
    """Start a long training, and wait for its evaluation at step 40."""
    words = ["train", *TINY_FLAGS, "--max-iters", "1000000", "--out", run, "--data", text_file]
    process = CommandProcess(words, folder, stdout=subprocess.DEVNULL)
    for said in process.stderr:
        if said.split()[:1] == ["40"]:
            break
    return process


def test_a_second_process_cannot_train_the_same_run(
    long_run: CommandProcess, command: Callable, tmp_path: Path
) -> None:
    done = command("train", "--resume", "run")
    assert done.returncode == 2
    assert "another process is training 'run': wait for it, or stop it" in done.stderr
    assert long_run.poll() is None


def test_a_training_survives_deleted_files(long_run: CommandProcess, tmp_path: Path) -> None:
    for name in ("model.safetensors", "metrics.jsonl", "snapshots.jsonl"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    time.sleep(0.5)
    long_run.send_signal(signal.SIGINT)
    assert long_run.wait(60) == 130
    run = minigpt.load(tmp_path / "run")
    assert resume(run.path, max_iters=run.info.step + 5).info.status == "finished"


def test_a_moved_run_directory_ends_the_training_and_the_run_can_resume(
    long_run: CommandProcess, tmp_path: Path
) -> None:
    (tmp_path / "run").rename(tmp_path / "moved")
    assert long_run.wait(60) == 2
    assert "cannot " in long_run.stderr.read()
    run = minigpt.load(tmp_path / "moved")
    step = CheckpointDirectory(run.path).open_newest().metadata.step
    assert resume(run.path, max_iters=step + 5).info.step == step + 5


def test_a_read_only_run_directory_ends_the_training_and_the_run_can_resume(
    long_run: CommandProcess, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    if subprocess.run(["mount", "--bind", run, run], capture_output=True).returncode:
        pytest.skip("only root can mount a folder on itself; test_resume.py lets every write fail in turn")
    try:
        while subprocess.run(["mount", "-o", "remount,ro,bind", run], capture_output=True).returncode:
            time.sleep(0.01)  # a file was open to be written
        assert long_run.wait(60) == 2
        assert "the file system is read-only: choose another place" in long_run.stderr.read()
    finally:
        long_run.kill()
        long_run.wait()
        subprocess.run(["umount", run], check=True)
    step = CheckpointDirectory(run).open_newest().metadata.step
    assert resume(run, max_iters=step + 5).info.step == step + 5


def test_a_closed_output_does_not_end_the_training(text_file: Path, tmp_path: Path) -> None:
    words = ["train", "--data", text_file, "--out", tmp_path / "run", *TINY_FLAGS]
    process = CommandProcess(words, tmp_path, stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert minigpt.load(tmp_path / "run").info.status == "finished"


def test_a_clock_that_goes_backwards_does_not_change_the_measured_seconds(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count(10**6, -1)
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    run = minigpt.train(data=text_file, out=tmp_path / "run", **TINY | {"snapshots": 0})
    seconds = [metrics.seconds for metrics in resume(run.path, max_iters=80).metrics]
    assert seconds == sorted(seconds)
    assert 0 <= seconds[-1] < 60


@pytest.mark.skipif(os.name != "posix", reason="needs a disk of its own size")
def test_a_full_disk_ends_the_training_and_the_run_can_resume(text_file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; test_resume.py lets every write fail in turn")
    try:
        process = start(text_file, disk / "run", tmp_path)
        with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2, said
        assert "the disk is full: free some space" in said
        (disk / "ballast").unlink()
        shutil.copytree(disk / "run", tmp_path / "run")
    finally:
        subprocess.run(["umount", disk], check=True)
    step = CheckpointDirectory(tmp_path / "run").open_newest().metadata.step
    run = resume(tmp_path / "run", max_iters=step + 20)
    assert [metrics.step for metrics in run.metrics] == [*range(0, step + 20, 20), step + 20]

"""What can go wrong while a model trains: jumps of the loss, no progress, and what the doctor says in the end."""

import dataclasses
import itertools
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import COMMAND, TINY, TINY_FLAGS, make_text

import minigpt
from minigpt.config import TrainingConfig
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError, DivergedError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import Metrics
from minigpt.training.callbacks import Journal
from minigpt.training.checkpoint import Saves
from minigpt.training.diagnostics import diagnosis, unigram_loss
from minigpt.training.gradients import Gradients
from minigpt.training.loop import Usual
from minigpt.training.optimizer import Optimizer
from minigpt.training.resume import resume


@pytest.fixture
def bad_batch(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The 150th batch that is ever trained on has a loss of 30, wherever it comes; what was trained on is kept."""
    add, seen, bad = Gradients.add, [], []

    def adding(self: Gradients, x: torch.Tensor, y: torch.Tensor, last: bool = True) -> float:
        seen.append(x)
        loss = add(self, x, y, last)
        if len(seen) == 150 and not bad:
            bad.append(x)
        return 30.0 if bad and torch.equal(x, bad[0]) else loss

    def beginning(self: Journal, optimizer: Optimizer, usual: Usual) -> int:
        seen.clear()  # those of the forecast's rehearsal
        return begin(self, optimizer, usual)

    begin = Journal.begin
    monkeypatch.setattr(Journal, "begin", beginning)
    monkeypatch.setattr(Gradients, "add", adding)
    return seen


def test_a_jump_stops_the_training_and_says_where(
    bad_batch: list[torch.Tensor], text_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match=r"the loss jumps from \d\.\d\d to 30\.00 at step 149: .* are kept"):
        minigpt.train(data=text_file, out=tmp_path / "run", **TINY | {"max_iters": 200})
    assert len(bad_batch) == 150
    run = minigpt.load(tmp_path / "run")
    assert run.record.status == "diverged"
    assert run.record.step == 140


def test_with_rollback_it_goes_back_once_and_leaves_that_batch_out(
    bad_batch: list[torch.Tensor], text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    settings = TINY | {"max_iters": 200, "on_spike": "rollback"}
    run = minigpt.train(data=text_file, out=tmp_path / "run", **settings)
    assert "back to step 140, and on without that batch" in capfd.readouterr().err
    assert [metrics.step for metrics in run.metrics] == list(range(0, 201, 20))
    assert sum(torch.equal(x, bad_batch[149]) for x in bad_batch) == 1
    assert all(torch.equal(*pair) for pair in zip(bad_batch[140:149], bad_batch[150:159], strict=True))
    assert Saves(run.path).newest().moment.skipped == 150 * 8
    longer = resume(run.path, max_iters=210)
    assert longer.record.status == "finished"


def test_a_second_jump_stops_it(bad_batch: list[torch.Tensor], text_file: Path, tmp_path: Path) -> None:
    def worse(self: Usual, loss: float, step: int, config: TrainingConfig) -> None:
        if step == 30:
            raise DivergedError("the loss jumps")

    usual, Usual.require = Usual.require, worse  # type: ignore[method-assign]
    try:
        with pytest.raises(DivergedError, match="the loss jumps"):
            minigpt.train(data=text_file, out=tmp_path / "run", **TINY, on_spike="rollback")
    finally:
        Usual.require = usual  # type: ignore[method-assign]


def test_weights_that_are_no_numbers_are_not_saved(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiling(self: Optimizer, n: int) -> None:
        if n == 30:
            self.parameters[0].grad.fill_(math.inf)
        step(self, n)

    step = Optimizer.step
    monkeypatch.setattr(Optimizer, "step", spoiling)
    settings = TINY | {"save_minutes": 1e-9, "grad_clip": 0.0}
    with pytest.raises(DivergedError, match="the loss is nan at step 31"):
        minigpt.train(data=text_file, out=tmp_path / "run", **settings)
    assert Saves(tmp_path / "run").newest().moment.step == 30


def test_what_is_a_jump() -> None:
    usual, config = Usual(), TrainingConfig()
    for n in range(300):
        usual.require(2 + 0.1 * math.sin(n), n, config)
    usual.require(2.9, 300, config)  # high, but less than a nat above
    for loss in (3.5, math.inf, math.nan):
        with pytest.raises(DivergedError, match="at step 301"):
            usual.require(loss, 301, config)
    wild = Usual()
    for n in range(300):
        wild.require(0.1 if n % 2 else 5.0, n, config)
    wild.require(9.0, 300, config)  # where losses are so different, that is none


def test_patience(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"max_iters": 4000, "eval_interval": 10, "learning_rate": 0.03, "train_fraction": 0.02}
    run = minigpt.train(data=text_file, out=tmp_path / "run", patience=3, **settings | {"snapshots": 0})
    assert run.record.status == "finished"
    assert run.record.step == run.metrics[-1].step < 4000
    assert run.metrics.index(run.best) == len(run.metrics) - 4
    with pytest.raises(ConfigError, match="its patience of 3 ended the run at step"):
        resume(run.path)
    assert resume(run.path, patience=0, max_iters=run.record.step + 3).record.status == "finished"


def told(run: Run, losses: list[tuple[float, float]], **changes: Any) -> list[str]:
    """What the doctor says of a run with those training and validation losses."""
    metrics = [Metrics(n * 100, *both, 1e-3, 1.0, n) for n, both in enumerate(losses)]
    record = dataclasses.replace(run.record, step=metrics[-1].step, **changes)
    dataset = Dataset(run.tokenizer.encode(make_text()), run.config)
    return diagnosis(dataclasses.replace(run, metrics=metrics, record=record), dataset)


def test_the_doctor_reads_curves(trained: Run) -> None:
    down = [(3.4 - 0.2 * n, 3.4 - 0.2 * n) for n in range(10)]
    flat = [(1.7, 1.7)] * 10
    assert told(trained, down + flat) == []
    assert "still improving: the validation loss fell by" in told(trained, down)[0]
    overfit = [(1.7 - 0.02 * n, 1.7 + 0.03 * n) for n in range(10)]
    assert "it overfits since step 900: the validation loss rose" in told(trained, down + overfit)[0]
    assert "text is too small" in told(trained, down + overfit, parameters=100_000)[0]
    assert "it diverged: the training loss was 1.60 at step 900" in told(trained, down + [(4.2, 4.2)] * 5)[0]
    unigram = unigram_loss(Dataset(trained.tokenizer.encode(make_text()), trained.config))
    assert "it is stuck" in told(trained, [(3.6, 3.6)] + [(unigram, unigram)] * 9)[0]
    assert told(trained, flat[:3]) == []
    assert told(trained, [*down, *[(0.0, 0.0)] * 20]) == []  # learned to the end
    by_muon = dataclasses.replace(trained, config=trained.config.override(optimizer="muon", dropout=0.4))
    [said] = told(by_muon, [(3.6, 3.6)] + [(unigram, unigram)] * 9)
    assert "try --muon-learning-rate 0.002 --learning-rate" in said
    assert "try --dropout 0.5 or" in told(by_muon, down + overfit)[0]


def test_the_doctor_on_real_runs(text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    def said(**settings: Any) -> str:
        capfd.readouterr()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        minigpt.train(out=folder, **TINY | {"data": text_file, "snapshots": 0, "eval_interval": 10} | settings)
        return capfd.readouterr().err

    assert "it is still improving" in said(learning_rate=1e-3, max_iters=100)
    assert "it is stuck" in said(learning_rate=1e-8, max_iters=100)
    assert "it diverged" in said(learning_rate=3.0, max_iters=60)
    short = {"train_fraction": 0.02, "learning_rate": 0.02, "max_iters": 400, "eval_interval": 40}
    assert "the text is too small for it" in said(**short)
    other = tmp_path / "other.txt"  # what is learned of its beginning is wrong at its end, which reads backwards
    other.write_text(make_text(18_000) + make_text(2_000, seed=1)[::-1])
    assert "it overfits since step" in said(data=other, learning_rate=0.01, max_iters=200, eval_interval=20)
    calm = said(learning_rate=1e-2, max_iters=600, eval_interval=50, schedule="cosine")
    assert not any(word in calm for word in ("diverged", "stuck", "overfits", "too small"))


@pytest.fixture
def long_run(text_file: Path, tmp_path: Path) -> subprocess.Popen:
    """A training by the command that has begun, and goes on until it is stopped."""
    call = [COMMAND, "train", *TINY_FLAGS, "--max-iters", "1000000", "--out", "run", "--data", str(text_file)]
    process = subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for said in process.stderr:
        if said.split()[:1] == ["40"]:
            break
    yield process
    process.kill()
    process.communicate()


def test_two_processes_on_one_run(long_run: subprocess.Popen, command: Callable, tmp_path: Path) -> None:
    done = command("train", "--resume", "run")
    assert done.returncode == 2
    assert "another process is training 'run': wait for it, or stop it" in done.stderr
    assert long_run.poll() is None


def test_files_that_vanish(long_run: subprocess.Popen, tmp_path: Path) -> None:
    for name in ("model.safetensors", "metrics.jsonl", "snapshots.jsonl"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    time.sleep(0.5)
    long_run.send_signal(signal.SIGINT)
    assert long_run.wait(60) == 130
    run = minigpt.load(tmp_path / "run")
    assert resume(run.path, max_iters=run.record.step + 5).record.status == "finished"


def test_a_folder_that_vanishes(long_run: subprocess.Popen, tmp_path: Path) -> None:
    (tmp_path / "run").rename(tmp_path / "moved")
    assert long_run.wait(60) == 2
    assert "cannot " in long_run.stderr.read()
    run = minigpt.load(tmp_path / "moved")
    step = Saves(run.path).newest().moment.step
    assert resume(run.path, max_iters=step + 5).record.step == step + 5


def test_a_folder_that_becomes_read_only(long_run: subprocess.Popen, tmp_path: Path) -> None:
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
    step = Saves(run).newest().moment.step
    assert resume(run, max_iters=step + 5).record.step == step + 5


def test_a_screen_that_nobody_reads_any_more(text_file: Path, tmp_path: Path) -> None:
    call = [COMMAND, "train", "--data", text_file, "--out", tmp_path / "run", *TINY_FLAGS]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert minigpt.load(tmp_path / "run").record.status == "finished"


def test_a_clock_that_goes_backwards(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = itertools.count(10**6, -1)
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    run = minigpt.train(data=text_file, out=tmp_path / "run", **TINY)
    seconds = [metrics.seconds for metrics in resume(run.path, max_iters=80).metrics]
    assert seconds == sorted(seconds)
    assert 0 <= seconds[-1] < 60


@pytest.mark.skipif(os.name != "posix", reason="needs a disk of its own size")
def test_a_disk_that_fills_up(text_file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; test_resume.py lets every write fail in turn")
    try:
        call = [COMMAND, "train", *TINY_FLAGS, "--max-iters", "1000000", "--out", disk / "run", "--data", text_file]
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for said in process.stderr:
            if said.split()[:1] == ["40"]:
                break
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
    step = Saves(tmp_path / "run").newest().moment.step
    run = resume(tmp_path / "run", max_iters=step + 20)
    assert [metrics.step for metrics in run.metrics] == [*range(0, step + 20, 20), step + 20]

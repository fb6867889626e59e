"""What can go wrong while a model trains: loss spikes, no progress, lost files; and what the diagnostics say."""

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
from minigpt.config import Config, TrainingConfig
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError, DivergedError
from minigpt.model.gpt import GPT
from minigpt.runs.record import Metrics
from minigpt.runs.run import Run
from minigpt.training.callbacks import Callback
from minigpt.training.checkpoint_store import Checkpoints
from minigpt.training.diagnostics import compute_unigram_loss, diagnose
from minigpt.training.loss_spikes import LossSpikeDetector
from minigpt.training.resume import resume
from minigpt.training.train import train
from minigpt.training.training_state import TrainingState


class BadLosses(Callback):
    """Makes the model return a loss of its own choice for some training batches, and keeps every batch trained on.

    It hooks into PyTorch, which calls the hook after each module.
    """

    def __init__(self, choose: Callable[["BadLosses"], float | None]) -> None:
        self.choose, self.batches = choose, []
        self.state: TrainingState | None = None

    def on_train_begin(self, state: TrainingState) -> None:
        self.state = state

    def hook(self, module: torch.nn.Module, inputs: tuple, output: Any) -> Any:
        if self.state is None or not isinstance(module, GPT) or not module.training:  # the forecast, or an evaluation
            return output
        self.batches.append(inputs[0])
        loss = self.choose(self)
        return output if loss is None else (output[0], output[1] - output[1].detach() + loss)


def train_badly(bad: BadLosses, data: Path, out: Path, **settings: Any) -> Run:
    """Train with those losses."""
    handle = torch.nn.modules.module.register_module_forward_hook(bad.hook)
    try:
        return train(Config().override(**TINY | settings), data, out, callbacks=[bad])
    finally:
        handle.remove()


def choose_30_for_one_batch(bad: BadLosses) -> float | None:
    """The 150th batch has a loss of 30, whenever it comes."""
    is_bad = len(bad.batches) >= 150 and torch.equal(bad.batches[-1], bad.batches[149])
    return 30.0 if is_bad else None


def test_a_loss_spike_stops_the_training_and_the_message_names_the_step(text_file: Path, tmp_path: Path) -> None:
    bad = BadLosses(choose_30_for_one_batch)
    with pytest.raises(DivergedError, match=r"the loss jumps from \d\.\d\d to 30\.00 at step 149: .* are kept"):
        train_badly(bad, text_file, tmp_path / "run", max_iters=200)
    assert len(bad.batches) == 150
    run = minigpt.load(tmp_path / "run")
    assert run.record.status == "diverged"
    assert run.record.step == 140


def test_a_rollback_returns_to_the_last_checkpoint_and_leaves_out_the_bad_batch(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    bad = BadLosses(choose_30_for_one_batch)
    run = train_badly(bad, text_file, tmp_path / "run", max_iters=200, on_spike="rollback")
    assert "back to step 140, and on without that batch" in capfd.readouterr().err
    assert [metrics.step for metrics in run.metrics] == list(range(0, 201, 20))
    assert sum(torch.equal(x, bad.batches[149]) for x in bad.batches) == 1
    assert all(torch.equal(*pair) for pair in zip(bad.batches[140:149], bad.batches[150:159], strict=True))
    assert Checkpoints(run.path).newest().metadata.skipped == 150 * 8
    longer = resume(run.path, max_iters=210)
    assert longer.record.status == "finished"


def test_a_second_divergence_stops_the_training(text_file: Path, tmp_path: Path) -> None:
    bad = BadLosses(lambda bad: math.nan if bad.state.step == 30 else None)
    with pytest.raises(DivergedError, match="the loss is nan at step 30"):
        train_badly(bad, text_file, tmp_path / "run", on_spike="rollback")
    assert len(bad.batches) == 31 + 11


class InfiniteGradient(Callback):
    """Adds infinity to the gradients of the step after step 30."""

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == 30:
            state.optimizer.parameters[0].grad.fill_(math.inf)


def test_weights_that_are_not_finite_are_not_saved(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"save_minutes": 1e-9, "grad_clip": 0.0}
    with pytest.raises(DivergedError, match="the loss is nan at step 31"):
        train(Config().override(**settings), text_file, tmp_path / "run", callbacks=[InfiniteGradient()])
    assert Checkpoints(tmp_path / "run").newest().metadata.step == 30


def test_a_spike_is_ten_standard_deviations_and_a_nat_above_the_mean() -> None:
    detector, config = LossSpikeDetector(), TrainingConfig()
    for n in range(300):
        detector.check(2 + 0.1 * math.sin(n), n, config)
    detector.check(2.9, 300, config)  # high, but less than a nat above
    for loss in (3.5, math.inf, math.nan):
        with pytest.raises(DivergedError, match="at step 301"):
            detector.check(loss, 301, config)
    wild = LossSpikeDetector()
    for n in range(300):
        wild.check(0.1 if n % 2 else 5.0, n, config)
    wild.check(9.0, 300, config)  # within ten standard deviations of such losses


def test_without_patience_left_the_training_ends(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"max_iters": 4000, "eval_interval": 10, "learning_rate": 0.03, "train_fraction": 0.02}
    run = minigpt.train(data=text_file, out=tmp_path / "run", patience=3, **settings | {"snapshots": 0})
    assert run.record.status == "finished"
    assert run.record.step == run.metrics[-1].step < 4000
    assert run.metrics.index(run.best) == len(run.metrics) - 4
    with pytest.raises(ConfigError, match="a patience of 3 ended the run at step"):
        resume(run.path)
    assert resume(run.path, patience=0, max_iters=run.record.step + 3).record.status == "finished"


def diagnose_losses(run: Run, losses: list[tuple[float, float]], **changes: Any) -> list[str]:
    """What the diagnostics say of a run with those training and validation losses."""
    metrics = [Metrics(n * 100, *both, 1e-3, 1.0, n) for n, both in enumerate(losses)]
    record = dataclasses.replace(run.record, step=metrics[-1].step, **changes)
    dataset = Dataset(run.tokenizer.encode(make_text()), run.config)
    return diagnose(dataclasses.replace(run, metrics=metrics, record=record), dataset)


def test_the_diagnostics_find_what_is_wrong_with_a_curve(trained: Run) -> None:
    down = [(3.4 - 0.2 * n, 3.4 - 0.2 * n) for n in range(10)]
    flat = [(1.7, 1.7)] * 10
    assert diagnose_losses(trained, down + flat) == []
    assert "still improving: the validation loss fell by" in diagnose_losses(trained, down)[0]
    overfit = [(1.7 - 0.02 * n, 1.7 + 0.03 * n) for n in range(10)]
    assert "it overfits since step 900: the validation loss rose" in diagnose_losses(trained, down + overfit)[0]
    assert "text is too small" in diagnose_losses(trained, down + overfit, parameters=100_000)[0]
    assert "it diverged: the training loss was 1.60 at step 900" in diagnose_losses(trained, down + [(4.2, 4.2)] * 5)[0]
    unigram = compute_unigram_loss(Dataset(trained.tokenizer.encode(make_text()), trained.config))
    assert "it is stuck" in diagnose_losses(trained, [(3.6, 3.6)] + [(unigram, unigram)] * 9)[0]
    assert diagnose_losses(trained, flat[:3]) == []
    assert diagnose_losses(trained, [*down, *[(0.0, 0.0)] * 20]) == []  # learned to the end
    by_muon = dataclasses.replace(trained, config=trained.config.override(optimizer="muon", dropout=0.4))
    [said] = diagnose_losses(by_muon, [(3.6, 3.6)] + [(unigram, unigram)] * 9)
    assert "try --muon-learning-rate 0.002 --learning-rate" in said
    assert "try --dropout 0.5 or" in diagnose_losses(by_muon, down + overfit)[0]


def test_the_diagnostics_find_what_is_wrong_with_real_runs(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
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
    step = Checkpoints(run.path).newest().metadata.step
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
    step = Checkpoints(run).newest().metadata.step
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
    step = Checkpoints(tmp_path / "run").newest().metadata.step
    run = resume(tmp_path / "run", max_iters=step + 20)
    assert [metrics.step for metrics in run.metrics] == [*range(0, step + 20, 20), step + 20]

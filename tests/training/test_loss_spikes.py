"""Losses that jump or are not finite: what is detected, and how a training goes back."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY

import minigpt
from minigpt.config import Config, TrainingConfig
from minigpt.errors import DivergedError
from minigpt.model.gpt import GPT
from minigpt.runs.run import Run
from minigpt.training.callbacks import Callback
from minigpt.training.checkpoint_directory import Checkpoints
from minigpt.training.loss_spikes import LossSpikeDetector
from minigpt.training.resume import resume
from minigpt.training.train import train
from minigpt.training.training_state import TrainingState


class BadLosses(Callback):
    """Scales the loss of some training batches, and so their gradients, and keeps every batch trained on.

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
        return output if loss is None else (output[0], output[1] * (loss / output[1].detach()))


def train_badly(bad: BadLosses, data: Path, out: Path, **settings: Any) -> Run:
    """Train with those losses."""
    handle = torch.nn.modules.module.register_module_forward_hook(bad.hook)
    try:
        return train(Config().override(**TINY | {"snapshots": 0} | settings), data, out, callbacks=[bad])
    finally:
        handle.remove()


def give_one_batch(loss: float) -> Callable[[BadLosses], float | None]:
    """The 150th batch has this loss, whenever it comes."""

    def choose(bad: BadLosses) -> float | None:
        is_bad = len(bad.batches) >= 150 and torch.equal(bad.batches[-1], bad.batches[149])
        return loss if is_bad else None

    return choose


def test_a_loss_spike_stops_the_training_and_the_message_names_the_step(text_file: Path, tmp_path: Path) -> None:
    bad = BadLosses(give_one_batch(30.0))
    with pytest.raises(DivergedError, match=r"the loss jumps from \d\.\d\d to 30\.00 at step 149: .* are kept"):
        train_badly(bad, text_file, tmp_path / "run", max_iters=200)
    assert len(bad.batches) == 150
    run = minigpt.load(tmp_path / "run")
    assert run.record.status == "diverged"
    assert run.record.step == 140


@pytest.mark.parametrize("loss", [30.0, math.nan])
def test_a_rollback_returns_to_the_last_checkpoint_and_leaves_out_the_bad_batch(
    loss: float, text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    bad = BadLosses(give_one_batch(loss))
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
    settings = TINY | {"save_minutes": 1e-9, "grad_clip": 0.0, "snapshots": 0}
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

"""Losses that jump or are not finite: what is detected, and how a training goes back."""

import math
import random
import string
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
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.checkpoint_format import MAX_SKIPS
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


def give_batches(loss: float, count: int) -> Callable[[BadLosses], float | None]:
    """The 150th batch and the next ones have this loss, `count` in all, until the first of them is left out."""

    def choose(bad: BadLosses) -> float | None:
        n = len(bad.batches)
        return loss if 150 <= n < 150 + count else None

    return choose


def test_one_odd_batch_does_not_stop_a_training(text_file: Path, tmp_path: Path) -> None:
    run = train_badly(BadLosses(give_batches(30.0, 40)), text_file, tmp_path / "run", max_iters=220)
    assert run.info.status == "finished"
    assert [metrics.step for metrics in run.metrics] == list(range(0, 221, 20))


def test_losses_that_stay_high_stop_the_training_and_the_message_names_the_step(
    text_file: Path, tmp_path: Path
) -> None:
    bad = BadLosses(give_batches(30.0, 10**6))
    with pytest.raises(
        DivergedError, match=r"the loss jumps from \d\.\d\d to 30\.00 at step 149 and stays high: .* are kept"
    ):
        train_badly(bad, text_file, tmp_path / "run", max_iters=300)
    assert len(bad.batches) == 150 + LossSpikeDetector.MAX_HIGH
    run = minigpt.load(tmp_path / "run")
    assert run.info.status == "diverged"
    assert run.info.step == 140


@pytest.mark.parametrize("loss", [30.0, math.nan])
def test_a_rollback_returns_to_the_last_checkpoint_and_leaves_out_the_bad_batch(
    loss: float, text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    high = LossSpikeDetector.MAX_HIGH + 1 if math.isfinite(loss) else 1  # a loss that is not finite counts at once
    bad = BadLosses(give_batches(loss, high))
    run = train_badly(bad, text_file, tmp_path / "run", max_iters=200, on_spike="rollback")
    assert "returning to step 140 and skipping that batch" in capfd.readouterr().err
    assert [metrics.step for metrics in run.metrics] == list(range(0, 201, 20))
    again = bad.batches[149 + high :]
    assert all(torch.equal(*pair) for pair in zip(bad.batches[140:149], again[:9], strict=True))
    assert not any(torch.equal(x, bad.batches[149]) for x in again)
    if high > 1:
        assert torch.equal(again[9], bad.batches[150])
    assert CheckpointDirectory(run.path).open_newest().metadata.get_skip_positions() == [150 * 8]
    longer = resume(run.path, max_iters=210)
    assert longer.info.status == "finished"


def test_several_batches_may_be_left_out_but_not_any_number(text_file: Path, tmp_path: Path) -> None:
    bad = BadLosses(lambda bad: math.nan if bad.state.step == 30 and len(bad.batches) < 60 else None)
    run = train_badly(bad, text_file, tmp_path / "few", on_spike="rollback")
    assert len(CheckpointDirectory(run.path).open_newest().metadata.get_skip_positions()) == 3
    bad = BadLosses(lambda bad: math.nan if bad.state.step == 30 else None)
    with pytest.raises(DivergedError, match=f"the loss is nan at step 30.*{MAX_SKIPS} batches were skipped already"):
        train_badly(bad, text_file, tmp_path / "many", on_spike="rollback")
    assert len(bad.batches) == 31 + MAX_SKIPS * 11


@pytest.mark.long
def test_a_log_with_lines_of_base64_trains_to_the_end(tmp_path: Path) -> None:
    rng = random.Random(0)
    lines = [f"2026-01-0{n % 9 + 1} 12:00:{n % 60:02} INFO request {n % 7} served in {n % 90} ms" for n in range(9000)]
    for place in (3000, 6500):
        lines.insert(place, "".join(rng.choices(string.ascii_letters + string.digits + "+/", k=1500)))
    (tmp_path / "server.log").write_text("\n".join(lines))
    settings = TINY | {"order": "epochs", "batch_size": 2, "max_iters": 1200, "eval_interval": 400}
    run = minigpt.train(data=tmp_path / "server.log", out=tmp_path / "run", learning_rate=1e-2, **settings)
    assert run.info.status == "finished"


class InfiniteGradient(Callback):
    """Adds infinity to the gradients of the step after step 30."""

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == 30:
            state.optimizer.parameters[0].grad.fill_(math.inf)


def test_weights_that_are_not_finite_are_not_saved(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"save_minutes": 1e-9, "grad_clip": 0.0, "snapshots": 0}
    with pytest.raises(DivergedError, match="the loss is nan at step 31"):
        train(Config().override(**settings), text_file, tmp_path / "run", callbacks=[InfiniteGradient()])
    assert CheckpointDirectory(tmp_path / "run").open_newest().metadata.step == 30


def test_a_high_loss_is_ten_standard_deviations_and_a_nat_above_the_mean() -> None:
    detector, config = LossSpikeDetector(), TrainingConfig()
    for n in range(300):
        detector.check(2 + 0.1 * math.sin(n), n, n, config)
    detector.check(2.9, 300, 300, config)  # less than a nat above
    assert not detector.is_suspicious
    detector.check(3.5, 301, 301, config)
    assert detector.is_suspicious
    restored = LossSpikeDetector()
    restored.load_state_dict(detector.state_dict())
    assert vars(restored) == vars(detector)
    for loss in (math.inf, math.nan):
        with pytest.raises(DivergedError, match="at step 302"):
            detector.check(loss, 302, 302, config)
    detector.check(2.0, 303, 303, config)
    assert not detector.is_suspicious
    wild = LossSpikeDetector()
    for n in range(300):
        wild.check(0.1 if n % 2 else 5.0, n, n, config)
    wild.check(9.0, 300, 300, config)  # within ten standard deviations of such losses
    assert not wild.is_suspicious

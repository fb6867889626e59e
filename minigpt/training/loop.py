"""The training loop."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from minigpt.config import Config, TrainingConfig
from minigpt.data.shards import Split
from minigpt.distributed.processes import ALONE, Processes
from minigpt.errors import DivergedError, RunError
from minigpt.model import LanguageModel
from minigpt.training.evaluation import Samples, estimate_loss
from minigpt.training.gradients import Gradients
from minigpt.training.interrupt import Interrupt
from minigpt.training.optimizer import Optimizer

MOST = 2**53  # losses, or nats


class Observer(Protocol):
    """What a training tells, and asks: when to evaluate."""

    def begin(self, optimizer: Optimizer, usual: "Usual") -> int:
        """Training is about to begin, or to go on; after how many steps."""

    def due(self, step: int, last: bool) -> bool:
        """Whether to evaluate after `step` steps, which may be the last ones."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Held around an evaluation and what follows from it."""

    def evaluated(self, step: int, train_loss: float, validation_loss: float, last: bool) -> None:
        """The estimates after `step` steps."""

    def stepped(self, step: int) -> None:
        """So many steps are made."""

    def enough(self) -> bool:
        """Whether to stop here, though there are steps left."""

    def back(self, error: DivergedError) -> int:
        """Go back to where all was well; after how many steps that was. Raises the error where that cannot be."""


class Batches(Samples, Protocol):
    """What a model trains on."""

    position: int  # windows, or examples, drawn so far

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """The next batch of a split: x and y, both (B, T)."""

    @property
    def tokens(self) -> int:
        """How many there are in all."""

    @property
    def tokens_a_batch(self) -> float:
        """How many a batch has, on average."""


def fit(
    model: LanguageModel,
    dataset: Batches,
    config: Config,
    journal: Observer,
    interrupt: Interrupt,
    estimate: Callable[..., dict[str, float]] = estimate_loss,
    processes: Processes = ALONE,
) -> int:
    """Train `model` in place for max_iters steps, fewer if interrupted or if the journal says enough; the last step.

    AdamW, or Muon, minimises the cross-entropy of random batches. The journal keeps what happens, on disk and on the
    screen; `interrupt` tells when to stop early. Raises DivergedError as soon as a loss is not a finite number or
    jumps, unless the journal goes back to before; DeviceError for a precision that the model's device doesn't have.
    """
    training = config.training
    model.train()
    with Gradients(model, config, processes) as gradients:  # type: ignore[arg-type]  # a LanguageModel is a torch module
        optimizer = Optimizer(gradients.parameters, training, gradients.scaler)
        usual = Usual()
        step = journal.begin(optimizer, usual)
        while True:
            [stopped] = processes.any(bool(interrupt.received))  # of several, one is enough
            last = step == training.max_iters or stopped
            try:
                if journal.due(step, last):
                    with journal.evaluating():
                        losses = processes.told(estimate(model, dataset, training.eval_windows))
                        for loss in losses.values():
                            require_finite(loss, step, training)
                        journal.evaluated(step, losses["train"], losses["val"], last)  # logs, saves, shows
                if last or journal.enough():
                    return step
                for n in range(1, training.gradient_accumulation + 1):
                    x, y = dataset.get_batch("train")  # (B, T), (B, T)
                    loss = gradients.add(x, y, last=n == training.gradient_accumulation)  # forward and backward
                    usual.require(loss, step, training)
            except DivergedError as error:
                step = journal.back(error)
                optimizer.zero_grad()
                continue
            optimizer.step(step)
            step += 1
            journal.stepped(step)


class Usual:
    """What the losses of batches are like, so that a jump is seen: their average and spread, the last ones above all.

    A loss that is higher than their average by ten times their spread, and by a nat, is no accident of the batch.
    """

    MEMORY, FIRST, SPREADS, NATS = 0.99, 100, 10, 1.0

    def __init__(self) -> None:
        self.seen, self.mean, self.square = 0, 0.0, 0.0

    def require(self, loss: float, step: int, config: TrainingConfig) -> None:
        """Raise DivergedError for a loss that jumps, or is not a finite number."""
        require_finite(loss, step, config)
        spread = math.sqrt(max(0.0, self.square - self.mean**2))
        if self.seen >= self.FIRST and loss - self.mean > max(self.SPREADS * spread, self.NATS):
            raise DivergedError(
                f"the loss jumps from {self.mean:.2f} to {loss:.2f} at step {step}: try {lower(config)}, or grad_clip 1"
            )
        keep = min(self.MEMORY, self.seen / (self.seen + 1))
        self.mean = keep * self.mean + (1 - keep) * loss
        self.square = keep * self.square + (1 - keep) * loss**2
        self.seen += 1

    def state(self) -> Tensor:
        """What `restore` goes on from: (3,), float64."""
        return torch.tensor([self.seen, self.mean, self.square], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """Go on as if those losses had been seen."""
        seen, self.mean, self.square = state.tolist()
        self.seen = int(seen)
        if not (0 <= self.seen < MOST and abs(self.mean) < MOST and abs(self.square) < MOST):
            raise RunError(f"a save is damaged: after {seen:g} losses their mean is {self.mean:g}")


def require_finite(loss: float, step: int, config: TrainingConfig) -> None:
    """Raise DivergedError, which says where and what to try, unless the loss is a finite number."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {step}: training diverged; "
            f"try {lower(config)}, such as {config.learning_rate / 10:g}"
        )


def lower(config: TrainingConfig) -> str:
    """The step sizes that may be too large, for a message."""
    muon = f"a muon_learning_rate below {config.muon_learning_rate:g} or " if config.optimizer == "muon" else ""
    return f"{muon}a learning_rate below {config.learning_rate:g}"

"""The training loop."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from minigpt.config import Config, TrainingConfig
from minigpt.errors import DivergedError
from minigpt.model import LanguageModel
from minigpt.text.shards import Split
from minigpt.training.evaluation import Samples, estimate_loss
from minigpt.training.gradients import Gradients
from minigpt.training.interrupt import Interrupt
from minigpt.training.optimizer import Optimizer


class Observer(Protocol):
    """What a training tells, and asks: when to evaluate."""

    def begin(self) -> None:
        """The first step is next."""

    def due(self, step: int) -> bool:
        """Whether to evaluate after `step` steps."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Held around an evaluation and what follows from it."""

    def evaluated(self, step: int, train_loss: float, validation_loss: float, last: bool) -> None:
        """The estimates after `step` steps; the last ones come whether they were due or not."""

    def stepped(self, step: int) -> None:
        """So many steps are made."""


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
) -> int:
    """Train `model` in place for max_iters steps, fewer if interrupted; the number of steps made.

    AdamW minimises the cross-entropy of random batches. The journal keeps what happens, on disk and on the
    screen; `interrupt` tells when to stop early. Raises DivergedError as soon as a loss is not a finite
    number, DeviceError for a precision that the model's device doesn't have.
    """
    training = config.training
    model.train()
    with Gradients(model, config) as gradients:  # type: ignore[arg-type]  # a LanguageModel is a torch module
        optimizer = Optimizer(gradients.parameters, training, gradients.scaler)
        journal.begin()
        for step in range(training.max_iters + 1):
            last = step == training.max_iters or bool(interrupt.received)
            if last or journal.due(step):
                with journal.evaluating():
                    losses = estimate(model, dataset, training.eval_windows)
                    for loss in losses.values():
                        require_finite(loss, step, training)
                    journal.evaluated(step, losses["train"], losses["val"], last)  # logs, saves, shows
            if last:
                break
            for _ in range(training.gradient_accumulation):
                x, y = dataset.get_batch("train")  # (B, T), (B, T)
                loss = gradients.add(x, y)  # forward, mean cross-entropy over B * T predictions, and backward
                require_finite(loss, step, training)
            optimizer.step(step)
            journal.stepped(step + 1)
    return step


def require_finite(loss: float, step: int, config: TrainingConfig) -> None:
    """Raise DivergedError, which says where and what to try, unless the loss is a finite number."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {step}: training diverged; "
            f"try a learning_rate below {config.learning_rate:g}, such as {config.learning_rate / 10:g}"
        )

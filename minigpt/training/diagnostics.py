"""The training doctor: what a finished training's curves say is wrong with it, and the one thing to do next.

Each finding is a sentence with its evidence. Where there is none, nothing is said.
"""

import math
import shlex
from collections.abc import Callable

import torch

from minigpt.data.dataset import Dataset
from minigpt.runs.run import Run
from minigpt.runs.run_directory import Metrics

CLEAR = 0.02  # share of the loss below which a difference may be chance
FAST = 0.01  # share by which the loss falls in the last fifth of a training that should go on
LATE = 5  # the last part in so many
STUCK = 0.03  # share of the unigram loss
OFTEN = 10  # times that a text is read before it may be learned by heart
FEWEST = 5  # evaluations, or else there is no curve
COUNTED = 1_000_000  # tokens of a split by which their frequencies are known


def diagnosis(run: Run, dataset: Dataset) -> list[str]:
    """What is wrong with a training that has ended, if anything: one sentence, the gravest."""
    metrics = run.metrics
    if len(metrics) < FEWEST or metrics[0].step:
        return []
    unigram = unigram_loss(dataset)
    return next(([said] for said in (look(run, dataset, unigram) for look in LOOKS) if said), [])


def unigram_loss(dataset: Dataset) -> float:
    """What guessing by frequency alone would cost on the validation split, in nats a token."""
    train, val = (torch.as_tensor(ids[:COUNTED]) for ids in (dataset.train, dataset.val))
    size = int(max(train.max(), val.max())) + 1
    counts = torch.bincount(train, minlength=size).double() + 1
    return float(-(counts / counts.sum()).log()[val].mean())


def diverged(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """The loss went up, of the text trained on too, and stayed there."""
    last, best, first = run.metrics[-1], lowest(run.metrics), run.metrics[0]
    worse = last.train_loss > max(best.train_loss * 1.3, unigram * (1 + STUCK))
    if not worse and last.train_loss <= first.train_loss:
        return None
    return (
        f"it diverged: the training loss was {best.train_loss:.2f} at step {best.step:,} and is {last.train_loss:.2f} "
        f"now; try {rates(run, 1 / 10)}, a tenth of what it was"
    )


def stuck(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """No better than counting, and not on its way to be."""
    last = run.metrics[-1]
    if last.train_loss < unigram * (1 - STUCK) or falling(run.metrics) > FAST:
        return None
    return (
        f"it is stuck: {last.validation_loss:.2f} is no better than knowing how frequent each token is "
        f"({unigram:.2f}); try {rates(run, 1 / 10)}, or {rates(run, 10)}"
    )


def too_small(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """Overfitting, of a text so short that it is learned by heart."""
    read = run.metrics[-1].step * run.config.tokens_per_step / len(dataset.train)
    if not rising(run.metrics) or run.record.parameters < len(dataset.train) or read < OFTEN:
        return None
    best = lowest(run.metrics)
    return (
        f"the text is too small for it: {run.record.parameters:,} parameters read {len(dataset.train):,} tokens "
        f"{read:,.0f} times, and the validation loss rises since step {best.step:,}; use a longer text"
    )


def overfitting(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """The validation loss rises while the training loss falls."""
    if not rising(run.metrics):
        return None
    best, last = lowest(run.metrics), run.metrics[-1]
    more = min(0.9, max(0.2, round(run.config.model.dropout + 0.1, 2)))
    return (
        f"it overfits since step {best.step:,}: the validation loss rose from {best.validation_loss:.4f} to "
        f"{last.validation_loss:.4f} while the training loss fell to {last.train_loss:.4f}; "
        f"stop there (--weights best has it), or try --dropout {more:g} or a smaller model"
    )


def improving(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """The validation loss still falls."""
    fell = falling(run.metrics)
    if fell < FAST:
        return None
    most = run.config.training.max_iters
    return (
        f"it is still improving: the validation loss fell by {fell:.1%} in the last {1 / LATE:.0%} of the steps; "
        f"train longer: minigpt train --resume {shlex.quote(str(run.path))} --max-iters {2 * most} --restart-schedule"
    )


def rates(run: Run, factor: float) -> str:
    """The flags that multiply the step sizes of a run by that."""
    training = run.config.training
    muon = f"--muon-learning-rate {training.muon_learning_rate * factor:g} " if training.optimizer == "muon" else ""
    return f"{muon}--learning-rate {training.learning_rate * factor:g}"


LOOKS: list[Callable[[Run, Dataset, float], str | None]] = [diverged, stuck, too_small, overfitting, improving]


def lowest(metrics: list[Metrics]) -> Metrics:
    """The evaluation with the lowest validation loss."""
    return min(metrics, key=lambda each: each.validation_loss)


def rising(metrics: list[Metrics]) -> bool:
    """Whether the validation loss has clearly risen since its lowest, and the training loss has fallen."""
    best, last = lowest(metrics), metrics[-1]
    return last.validation_loss > best.validation_loss * (1 + CLEAR) and last.train_loss < best.train_loss


def falling(metrics: list[Metrics]) -> float:
    """By what share the validation loss fell in the last fifth of the steps, lowest against lowest, against chance."""
    steps = metrics[-1].step
    late = [each.validation_loss for each in metrics if each.step >= steps * (1 - 1 / LATE)]
    before = [each.validation_loss for each in metrics if each.step < steps * (1 - 1 / LATE)][-len(late) :]
    middle = math.ceil(len(late) / 2)
    fell_from, fell_to = min(before, default=0.0), min(late[-middle:])
    return 1 - fell_to / fell_from if fell_from else 0.0

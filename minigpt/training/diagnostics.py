"""Diagnose a finished training run from its curves: one sentence that says what is wrong, and what to do next."""

import math
import shlex
from collections.abc import Callable

import torch

from minigpt.data.dataset import Dataset
from minigpt.runs.run import Run
from minigpt.runs.run_info import Metrics
from minigpt.system.advice import choose_advice, format_setting

MIN_DIFFERENCE = 0.02  # share of the loss; a smaller difference may be chance
MIN_FALL = 0.01  # share of the loss; a training run that falls more in its last fifth should go on
LAST_PART = 5  # the last fifth of the steps
STUCK_MARGIN = 0.03  # share of the unigram loss
MEMORIZING_EPOCHS = 10  # a text that is read more often may be memorized
MIN_EVALUATIONS = 5  # fewer are not a curve
MAX_COUNTED = 1_000_000  # tokens of a split whose frequencies are counted


def diagnose(run: Run, dataset: Dataset) -> str | None:
    """Return the most serious problem as one sentence with its evidence, or None.

    Args:
        run: a finished run with its metrics.
        dataset: what it was trained on.
    """
    metrics = run.metrics
    if len(metrics) < MIN_EVALUATIONS or metrics[0].step:
        return None
    unigram = compute_unigram_loss(dataset)
    findings = (find(run, dataset, unigram) for find in FINDERS)
    return next((finding for finding in findings if finding), None)


def compute_unigram_loss(dataset: Dataset) -> float:
    """Return the validation loss, in nats per token, of a model that knows only how frequent each token is."""
    train, val = (torch.as_tensor(ids[:MAX_COUNTED]) for ids in (dataset.train, dataset.val))
    size = int(max(train.max(), val.max())) + 1
    counts = torch.bincount(train, minlength=size).double() + 1
    return float(-(counts / counts.sum()).log()[val].mean())


def _find_divergence(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """Return a sentence if the training loss rose and stayed high."""
    last, best, first = run.metrics[-1], _find_best(run.metrics), run.metrics[0]
    worse = last.train_loss > max(best.train_loss * 1.3, unigram * (1 + STUCK_MARGIN))
    if not worse and last.train_loss <= first.train_loss:
        return None
    return (
        f"the run diverged: the training loss was {best.train_loss:.2f} at step {best.step:,} and is "
        f"{last.train_loss:.2f} at the end; try {_format_rates(run, 1 / 10)}, a tenth of what it was"
    )


def _find_plateau(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """Return a sentence if the loss does not fall below that of the token frequencies."""
    last = run.metrics[-1]
    if last.train_loss < unigram * (1 - STUCK_MARGIN) or _compute_fall(run.metrics) > MIN_FALL:
        return None
    return (
        f"the run is stuck: its validation loss of {last.validation_loss:.2f} is no better than the loss of token "
        f"frequencies ({unigram:.2f}); try {_format_rates(run, 1 / 10)}, or {_format_rates(run, 10)}"
    )


def _find_small_text(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """Return a sentence if the model memorizes a text that is too short for it."""
    read = run.metrics[-1].step * run.config.tokens_per_step / len(dataset.train)
    if not _is_rising(run.metrics) or run.info.parameters < len(dataset.train) or read < MEMORIZING_EPOCHS:
        return None
    best = _find_best(run.metrics)
    return (
        f"the text is too small for the model: {run.info.parameters:,} parameters read {len(dataset.train):,} tokens "
        f"{read:,.0f} times, and the validation loss has risen since step {best.step:,}; use a longer text"
    )


def _find_overfitting(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """Return a sentence if the validation loss rises while the training loss falls."""
    if not _is_rising(run.metrics):
        return None
    best, last = _find_best(run.metrics), run.metrics[-1]
    weights = choose_advice("--weights best", "weights='best'")
    more = min(0.9, max(0.2, round(run.config.model.dropout + 0.1, 2)))
    return (
        f"the model has overfitted since step {best.step:,}: the validation loss rose from "
        f"{best.validation_loss:.4f} to {last.validation_loss:.4f} while the training loss fell to "
        f"{last.train_loss:.4f}; stop there ({weights} has those weights), or try {format_setting('dropout', more)} "
        "or a smaller model"
    )


def _find_improvement(run: Run, dataset: Dataset, unigram: float) -> str | None:
    """Return a sentence if the validation loss still falls."""
    fell = _compute_fall(run.metrics)
    if fell < MIN_FALL:
        return None
    path, iters = str(run.path), 2 * run.config.training.max_iters
    command = f"minigpt train --resume {shlex.quote(path)} --max-iters {iters} --restart-schedule"
    call = f"minigpt.resume({path!r}, max_iters={iters}, restart_schedule=True)"
    return (
        f"the model is still improving: the validation loss fell by {fell:.1%} in the last {1 / LAST_PART:.0%} of the "
        f"steps; train longer: {choose_advice(command, call)}"
    )


def _format_rates(run: Run, factor: float) -> str:
    """Return the flags or arguments that multiply the learning rates of a run by a factor."""
    training = run.config.training
    names = [*(["muon_learning_rate"] if training.optimizer == "muon" else []), "learning_rate"]
    return " ".join(format_setting(name, getattr(training, name) * factor) for name in names)


FINDERS: list[Callable[[Run, Dataset, float], str | None]] = [
    _find_divergence,
    _find_plateau,
    _find_small_text,
    _find_overfitting,
    _find_improvement,
]


def _find_best(metrics: list[Metrics]) -> Metrics:
    """Return the evaluation with the lowest validation loss."""
    return min(metrics, key=lambda each: each.validation_loss)


def _is_rising(metrics: list[Metrics]) -> bool:
    """Return True if the validation loss has clearly risen since its lowest while the training loss fell."""
    best, last = _find_best(metrics), metrics[-1]
    return last.validation_loss > best.validation_loss * (1 + MIN_DIFFERENCE) and last.train_loss < best.train_loss


def _compute_fall(metrics: list[Metrics]) -> float:
    """Return by what share the validation loss fell in the last fifth of the steps.

    The lowest losses are compared, because single ones vary by chance.
    """
    steps = metrics[-1].step
    late = [each.validation_loss for each in metrics if each.step >= steps * (1 - 1 / LAST_PART)]
    before = [each.validation_loss for each in metrics if each.step < steps * (1 - 1 / LAST_PART)][-len(late) :]
    middle = math.ceil(len(late) / 2)
    fell_from, fell_to = min(before, default=0.0), min(late[-middle:])
    return 1 - fell_to / fell_from if fell_from else 0.0

"""`estimate_loss`: the mean loss on the same windows of both splits each time. And the steps to evaluate at."""

import functools
from typing import Protocol

from torch import Tensor

from minigpt.config import TrainingConfig
from minigpt.data.shards import SPLITS, Split
from minigpt.model import LanguageModel
from minigpt.model.loss import compute_mean_loss


class WindowSampler(Protocol):
    """Data that can be evaluated on."""

    def get_evaluation_batch(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """Return at most `count` evenly spaced windows of a split, always the same: x and y, (N, T)."""


def estimate_loss(model: LanguageModel, data: WindowSampler, eval_windows: int) -> dict[str, float]:
    """Return the mean loss of both splits in nats per token, as {"train": …, "val": …}.

    The windows are evenly spaced and the same each time, so a curve of estimates shows the learning and not the luck
    of the draw. Dropout is off. `compute_exact_loss` measures a whole split.

    Args:
        model: any language model; its training mode is the same afterwards.
        data: what has the windows.
        eval_windows: number of windows of each split.
    """
    batches = {split: data.get_evaluation_batch(split, eval_windows) for split in SPLITS}
    return {split: compute_mean_loss(model, x, y) for split, (x, y) in batches.items()}


def should_evaluate(step: int, config: TrainingConfig) -> bool:
    """Return whether to evaluate after `step` steps: every eval_interval, at snapshots and at the end."""
    return is_logged(step, config) or step in _get_snapshot_steps(config.snapshots, config.max_iters)


def is_logged(step: int, config: TrainingConfig) -> bool:
    """Return whether an evaluation after `step` steps goes into metrics.jsonl; others are only printed."""
    return step % config.eval_interval == 0 or step == config.max_iters


def choose_snapshot_steps(count: int, max_iters: int) -> list[int]:
    """Return at most `count` different steps: 0, and the others evenly spaced on a log scale from 1 to max_iters.

    >>> choose_snapshot_steps(12, 5000)
    [0, 1, 2, 5, 13, 30, 71, 166, 388, 910, 2133, 5000]
    """
    if count < 2:
        return [max_iters] * count
    last = max(1, count - 2)
    return sorted({0, max_iters} | {round(max_iters ** (i / last)) for i in range(count - 2)})


@functools.lru_cache(maxsize=1)
def _get_snapshot_steps(count: int, max_iters: int) -> frozenset[int]:
    """Return the steps of `choose_snapshot_steps`, which the loop asks for at every step."""
    return frozenset(choose_snapshot_steps(count, max_iters))

"""The steps at which a training run is evaluated, and those at which the model writes a text."""

import functools
import math

from minigpt.config import TrainingConfig

STEPS_PER_SNAPSHOT = 20  # a snapshot takes as long as some steps, and a short training changes little between two


def should_evaluate(step: int, config: TrainingConfig) -> bool:
    """Return True if an evaluation is due after `step` steps: every eval_interval, at snapshots and at the end."""
    return is_logged(step, config) or step in get_snapshot_steps(config)


def is_logged(step: int, config: TrainingConfig) -> bool:
    """Return True if an evaluation after `step` steps goes into metrics.jsonl; others are only printed."""
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


def get_snapshot_steps(config: TrainingConfig) -> frozenset[int]:
    """Return the steps at which a training run writes a text: `snapshots` of them, but fewer in a short run.

    A run has one at step 0, and at most one for each 20 steps.
    """
    return _get_snapshot_steps(config.snapshots, config.max_iters)


@functools.lru_cache(maxsize=1)
def _get_snapshot_steps(snapshots: int, max_iters: int) -> frozenset[int]:
    """Return the steps of `get_snapshot_steps`, which the loop asks for at every step."""
    count = min(snapshots, 1 + math.ceil(max_iters / STEPS_PER_SNAPSHOT))
    return frozenset(choose_snapshot_steps(count, max_iters))

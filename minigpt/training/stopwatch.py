"""Time spent on training, apart from the time spent on evaluating it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from `begin`; what happens in an `evaluating` block counts as evaluation, not as training.

    Attributes:
        evaluation_seconds: the time spent in such blocks.
    """

    def __init__(self) -> None:
        self.evaluation_seconds = 0.0
        self._started = time.perf_counter()
        self._paused: float | None = None

    def begin(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the start, evaluations included."""
        return time.perf_counter() - self._started

    @property
    def training_seconds(self) -> float:
        """Time since the start, evaluations left out."""
        now = time.perf_counter() if self._paused is None else self._paused
        return now - self._started - self.evaluation_seconds

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """What happens in the block counts as evaluation, not as training."""
        self._paused = time.perf_counter()
        yield
        self.evaluation_seconds += time.perf_counter() - self._paused
        self._paused = None

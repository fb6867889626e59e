"""Time spent on training, apart from the time spent on evaluating it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from `start`; what happens in an `evaluating` block counts as evaluation, not as training.

    Attributes:
        evaluation_seconds: the time spent in such blocks.
    """

    def __init__(self) -> None:
        self.evaluation_seconds = 0.0
        self._started = time.perf_counter()
        self._paused: float | None = None

    def start(self, training_seconds: float = 0.0, evaluation_seconds: float = 0.0) -> None:
        """Start the clock, from where it stood when it was stopped."""
        self.evaluation_seconds = evaluation_seconds
        self._started = time.perf_counter() - training_seconds - evaluation_seconds

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
        try:
            yield
        finally:
            self.evaluation_seconds += time.perf_counter() - self._paused
            self._paused = None

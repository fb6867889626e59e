"""Time spent on training, without the time spent on evaluation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Measures from its construction, or from `start`. The time in a `count_as_evaluation` block is evaluation time.

    Attributes:
        evaluation_seconds: seconds spent on evaluation.
    """

    def __init__(self) -> None:
        self.start()

    def start(self, training_seconds: float = 0.0, evaluation_seconds: float = 0.0) -> None:
        """Start from these times, which are above 0 for a resumed training."""
        self.evaluation_seconds = evaluation_seconds
        self._started = time.perf_counter() - training_seconds - evaluation_seconds
        self._paused: float | None = None

    @property
    def seconds(self) -> float:
        """Time since the start, with evaluations."""
        return time.perf_counter() - self._started

    @property
    def training_seconds(self) -> float:
        """Time since the start, without evaluations."""
        now = time.perf_counter() if self._paused is None else self._paused
        return now - self._started - self.evaluation_seconds

    @contextmanager
    def count_as_evaluation(self) -> Iterator[None]:
        """Count the block as evaluation."""
        self._paused = time.perf_counter()
        try:
            yield
        finally:
            self.evaluation_seconds += time.perf_counter() - self._paused
            self._paused = None


def format_duration(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss.

    >>> format_duration(3725)
    '1:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

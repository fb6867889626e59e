"""Time several functions in turns, so that a change of the machine's speed affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

THREAD_COUNTS = sorted({1, torch.get_num_threads()})  # read before `time_in_turns` changes the number


@dataclass(frozen=True)
class Side:
    """A function to time, and the number of threads it runs on."""

    work: Callable[[], object]
    threads: int = 1


@dataclass(frozen=True)
class Timing:
    """The median seconds of a call of one side; and the median, lowest and highest ratio to the first side."""

    seconds: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def time_in_turns(sides: Mapping[str, Side], rounds: int = 9, seconds: float = 0.5) -> dict[str, Timing]:
    """Time all sides, one after the other, in several rounds.

    Args:
        sides: the sides by name. The first one is the base of the ratios.
        rounds: the number of rounds.
        seconds: how long each side runs in a round, about.

    Returns:
        The timing of each side. A ratio is a side's time over the first side's time in the same round.
    """
    calls = {name: max(1, round(seconds / _time_call(side))) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            torch.set_num_threads(side.threads)
            start = time.perf_counter()
            for _ in range(calls[name]):
                side.work()
            times[name].append((time.perf_counter() - start) / calls[name])
    first = next(iter(times.values()))
    timings = {}
    for name, taken in times.items():
        ratios = sorted(t / f for t, f in zip(taken, first, strict=True))
        timings[name] = Timing(statistics.median(taken), statistics.median(ratios), ratios[0], ratios[-1])
    return timings


def _time_call(side: Side) -> float:
    """Return the seconds of a call, after two calls to warm up."""
    torch.set_num_threads(side.threads)
    for _ in range(2):
        side.work()
    start = time.perf_counter()
    side.work()
    return time.perf_counter() - start


def choose_threads(work: Callable[[], object]) -> Side:
    """Return the side on the number of threads that makes it fastest."""
    timings = time_in_turns({str(count): Side(work, count) for count in THREAD_COUNTS}, rounds=3, seconds=0.3)
    return Side(work, int(min(timings, key=lambda count: timings[count].seconds)))

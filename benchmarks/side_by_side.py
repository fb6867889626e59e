"""Time several ways to do the same thing in turn, so that a machine's moods fall on all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

COUNTS = sorted({1, torch.get_num_threads()})  # of threads to choose from; `alternate` changes what PyTorch has


@dataclass(frozen=True)
class Side:
    """One way: what to call, and on how many threads."""

    work: Callable[[], object]
    threads: int = 1


@dataclass(frozen=True)
class Timing:
    """What came out for one side: its median seconds a call, and its ratio to the first side's, with the spread."""

    seconds: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def alternate(sides: Mapping[str, Side], rounds: int = 9, seconds: float = 0.5) -> dict[str, Timing]:
    """Run every side for about so many seconds a round, one after the other, for so many rounds.

    A ratio is a side's time over the first side's in the same round; the median of those is what counts.
    """
    calls = {name: max(1, round(seconds / once(side))) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            torch.set_num_threads(side.threads)
            began = time.perf_counter()
            for _ in range(calls[name]):
                side.work()
            times[name].append((time.perf_counter() - began) / calls[name])
    first = next(iter(times.values()))
    timings = {}
    for name, taken in times.items():
        ratios = sorted(t / f for t, f in zip(taken, first, strict=True))
        timings[name] = Timing(statistics.median(taken), statistics.median(ratios), ratios[0], ratios[-1])
    return timings


def once(side: Side) -> float:
    """The seconds of a call, the first two being for warming up."""
    torch.set_num_threads(side.threads)
    for _ in range(2):
        side.work()
    began = time.perf_counter()
    side.work()
    return time.perf_counter() - began


def faster_threads(work: Callable[[], object]) -> Side:
    """The side on as many threads as it is fastest with: each peer is shown at its best."""
    timings = alternate({str(count): Side(work, count) for count in COUNTS}, rounds=3, seconds=0.3)
    return Side(work, int(min(timings, key=lambda count: timings[count].seconds)))

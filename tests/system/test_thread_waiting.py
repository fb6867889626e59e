"""OpenMP's threads sleep while they wait for each other, as long as other programs use the CPUs."""

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minigpt.system.thread_waiting import (
    BUSY_SHARE,
    QUIET_PERIODS,
    QUIET_SHARE,
    BusyDetector,
    IdleThreads,
    add_idle_threads_when_busy,
    find_openmp_libraries,
    measure_cpu_wait,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how long threads wait for a CPU")


def test_the_machine_is_busy_at_once_and_quiet_after_some_periods() -> None:
    detector = BusyDetector()
    assert not detector.update(BUSY_SHARE)
    assert detector.update(BUSY_SHARE + 0.01)
    assert all(detector.update(0.0) for _ in range(QUIET_PERIODS - 1))
    assert detector.update(QUIET_SHARE)  # not quiet: the periods are counted anew
    assert all(detector.update(0.0) for _ in range(QUIET_PERIODS - 1))
    assert not detector.update(0.0)


def count_threads() -> int:
    """Return the number of threads of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


def wait_for_threads(is_reached: Callable[[int], bool]) -> None:
    """Wait until the number of this process's threads is as asked."""
    for _ in range(2000):
        if is_reached(count_threads()):
            return
        time.sleep(0.005)
    raise AssertionError(f"{count_threads()} threads")


@linux
def test_idle_threads_are_more_than_there_are_cpus_and_end() -> None:
    torch.ones(1)
    before, libraries = count_threads(), find_openmp_libraries()
    assert libraries
    idle = [IdleThreads(library) for library in libraries]
    wait_for_threads(lambda threads: threads == before + len(libraries) * (1 + len(os.sched_getaffinity(0))))
    for threads in idle:
        threads.stop()
    wait_for_threads(lambda threads: threads == before)


@linux
def test_idle_threads_come_while_the_threads_wait_for_a_cpu_and_go_afterwards() -> None:
    before, stopped, waited = count_threads(), threading.Event(), itertools.count(0.0, 0.001)
    is_busy = threading.Event()
    is_busy.set()
    watcher = threading.Thread(
        target=add_idle_threads_when_busy, args=(stopped, 0.001, lambda: next(waited) if is_busy.is_set() else 0.0)
    )
    watcher.start()
    wait_for_threads(lambda threads: threads > before + 1)
    is_busy.clear()
    wait_for_threads(lambda threads: threads == before + 1)
    stopped.set()
    watcher.join()


@linux
def test_idle_threads_come_in_a_library_that_is_loaded_while_the_machine_is_busy() -> None:
    torch.ones(1)
    before, stopped, waited = count_threads(), threading.Event(), itertools.count(0.0, 0.001)
    answers = iter([[], []])  # busy before OpenMP is loaded
    watcher = threading.Thread(
        target=add_idle_threads_when_busy,
        args=(stopped, 0.001, lambda: next(waited), lambda: next(answers, find_openmp_libraries())),
    )
    watcher.start()
    wait_for_threads(lambda threads: threads > before + 1)
    stopped.set()
    watcher.join()
    wait_for_threads(lambda threads: threads <= before)


@linux
def test_the_time_that_threads_wait_for_a_cpu_grows_and_is_known() -> None:
    first = measure_cpu_wait()
    torch.ones(300, 300) @ torch.ones(300, 300)
    assert measure_cpu_wait() >= first > 0

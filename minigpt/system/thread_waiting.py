"""Let OpenMP's threads sleep while they wait for each other, as long as other programs use the CPUs.

GNU's OpenMP, which PyTorch and Numba use on Linux, lets a waiting thread spin: the thread asks again and again whether
the others are done. On a quiet machine nothing is faster. Beside another program nothing is slower: the spinning thread
keeps the CPU from the thread that it waits for. OpenMP has no function that changes this, but a thread spins only for
an instant while the process has more OpenMP threads than CPUs [1]. So `add_idle_threads_when_busy` adds idle
OpenMP threads for as long as the machine is busy. That changes the time of a step, and none of its numbers.

[1] https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minigpt.system.cpus import count_cpus

PERIOD = 0.25  # seconds between two measurements
BUSY_SHARE = 0.1  # the machine is busy if the threads together wait for a CPU for this share of the time
QUIET_SHARE = 0.02
QUIET_PERIODS = 8  # quiet measurements, one after the other, before the threads spin again
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # with them a user chooses how threads wait


class BusyDetector:
    """Decides from the time that threads waited for a CPU whether other programs use the CPUs."""

    def __init__(self) -> None:
        self.is_busy = False
        self._quiet_periods = 0

    def update(self, share: float) -> bool:
        """Return True if the machine is busy.

        Args:
            share: the time for which the threads waited for a CPU in the last period, divided by the period.
        """
        self._quiet_periods = self._quiet_periods + 1 if share < QUIET_SHARE else 0
        if share > BUSY_SHARE:
            self.is_busy = True
        elif self._quiet_periods >= QUIET_PERIODS:
            self.is_busy = False
        return self.is_busy


class IdleThreads:
    """OpenMP threads that do nothing: more than there are CPUs, in one copy of GNU's OpenMP in this process."""

    def __init__(self, library: str) -> None:
        """Start the threads in the copy that was loaded from a file."""
        self._library = library
        self._stopped = threading.Event()
        self._owner = threading.Thread(target=self._run_team, daemon=True)
        self._owner.start()

    def stop(self) -> None:
        """Stop the threads."""
        self._stopped.set()

    def _run_team(self) -> None:
        """Start a team of OpenMP threads, whose other threads live as long as this one, and wait for `stop`."""
        nothing = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p)  # each thread of the team calls it once
        with suppress(OSError, AttributeError):
            ctypes.CDLL(self._library).GOMP_parallel(nothing, None, len(os.sched_getaffinity(0)) + 1, 0)
        self._stopped.wait()


def find_openmp_libraries() -> list[str]:
    """Return the files of GNU's OpenMP that this process has loaded. PyTorch and Numba may have one each."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/libgomp" in line}
    return sorted(paths)


def measure_cpu_wait() -> float:
    """Return for how many seconds the threads of this process could have run, but had no CPU.

    Where the system does not count it, the answer is 0.
    """
    nanoseconds = 0
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                nanoseconds += int((thread / "schedstat").read_text().split()[1])
    return nanoseconds / 1e9


def add_idle_threads_when_busy(
    stopped: threading.Event,
    period: float = PERIOD,
    measure: Callable[[], float] = measure_cpu_wait,
    find_libraries: Callable[[], list[str]] = find_openmp_libraries,
) -> None:
    """Add idle threads whenever the machine is busy, until the event is set.

    Args:
        stopped: the event.
        period: seconds between two measurements.
        measure: returns for how many seconds the threads have waited for a CPU.
        find_libraries: returns the copies of OpenMP. A machine can be busy before PyTorch has loaded its copy.
    """
    detector, before = BusyDetector(), measure()
    idle_threads: dict[str, IdleThreads] = {}  # by the copy of OpenMP
    while not stopped.wait(period):
        after = measure()
        is_busy, before = detector.update((after - before) / period), after
        if is_busy:
            for library in find_libraries():
                if library not in idle_threads:
                    idle_threads[library] = IdleThreads(library)
        else:
            _stop_all(idle_threads)
    _stop_all(idle_threads)


def _stop_all(idle_threads: dict[str, IdleThreads]) -> None:
    """Stop the idle threads of every copy of OpenMP, and forget them."""
    for threads in idle_threads.values():
        threads.stop()
    idle_threads.clear()


@contextmanager
def avoid_spinning_when_busy() -> Iterator[None]:
    """Let OpenMP's waiting threads sleep within the block, whenever other programs use the CPUs.

    Nothing changes on systems other than Linux, on one CPU, or where the user chose how threads wait.
    """
    stopped = threading.Event()
    if sys.platform == "linux" and not any(name in os.environ for name in WAIT_VARIABLES) and count_cpus() > 1:
        threading.Thread(target=add_idle_threads_when_busy, args=(stopped,), daemon=True).start()
    try:
        yield
    finally:
        stopped.set()

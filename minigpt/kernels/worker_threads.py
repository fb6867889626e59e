"""Threads that run compiled loops at the same time. The loops do not hold the interpreter's lock."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_threads(work: Callable[[int], T], threads: int) -> list[T]:
    """Return work(0), work(1), ..., each computed by a thread of its own."""
    if threads == 1:
        return [work(0)]
    running = [_start_workers(threads - 1).submit(work, part) for part in range(1, threads)]
    return [work(0), *(future.result() for future in running)]


@functools.cache
def _start_workers(threads: int) -> ThreadPoolExecutor:
    """Return threads that wait for work. A forked process does not use them: there PyTorch has one thread."""
    return ThreadPoolExecutor(threads, thread_name_prefix="minigpt-loops")

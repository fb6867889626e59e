"""Processes that share work out between them, and end with the one that started them."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
LEFT_TO_THE_FIRST = ("SIGINT", "SIGTERM", "SIGHUP")  # signals; what a terminal sends goes to all processes at once


def start_pool(processes: int, prepare: Callable[..., None] | None = None, *arguments: object) -> ProcessPoolExecutor:
    """So many processes, each of which first calls `prepare`; signals are left to the one that started them."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start_worker, (prepare, arguments))
    with _block_signals():  # which the new ones inherit, from their first moment on
        for _ in range(processes):
            pool.submit(int)  # each starts one
    return pool


def map_in_order(pool: ProcessPoolExecutor, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """What `work` makes of each item, in order.

    Unlike `pool.map` it cancels nothing where it is left early: that and a worker's death at once block the pool.
    """
    for future in [pool.submit(work, item) for item in items]:
        yield future.result()


@contextmanager
def _block_signals() -> Iterator[None]:
    """Within the block the signals wait, where the system can (Windows cannot)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in LEFT_TO_THE_FIRST})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(prepare: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if prepare:
        prepare(*arguments)


def _exit_with_parent() -> None:
    """End this process with its parent, also one that was killed; a pool's own workers would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

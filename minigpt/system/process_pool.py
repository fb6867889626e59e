"""A pool of processes that end with the process that started them."""

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

from minigpt.system.signals import block_signals
from minigpt.system.warn_once import warn_once

Item = TypeVar("Item")
Result = TypeVar("Result")


def start_pool(processes: int, initialize: Callable[..., None] | None = None, *args: object) -> Executor:
    """Start worker processes, which leave signals to the process that starts them.

    Worker processes need semaphores, which Linux keeps in /dev/shm. Where the system refuses them, for example because
    /dev/shm is read-only or full, a thread of this process does the work, after a warning.

    Args:
        processes: how many.
        initialize: each worker calls it first, with `args`.
        *args: the arguments of `initialize`.
    """
    try:
        pool = ProcessPoolExecutor(processes, get_context("spawn"), _initialize_worker, (initialize, args))
    except (OSError, ImportError, NotImplementedError) as error:  # Python without semaphores raises the last two
        reason = getattr(error, "strerror", None) or error
        warn_once(f"worker processes need semaphores in /dev/shm ({reason}): one thread does the work")
        return ThreadPoolExecutor(1, initializer=functools.partial(initialize, *args) if initialize else None)
    with block_signals():  # the workers inherit the block, so no signal reaches them while they start
        for _ in range(processes):
            pool.submit(int)  # each call starts a worker
    return pool


def map_in_order(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of `work` in the order of the items.

    `pool.map` cancels the waiting jobs if its result is not read to the end. That blocks the pool if a worker dies at
    the same time; so this function cancels nothing.
    """
    for future in [pool.submit(work, item) for item in items]:
        yield future.result()


def _initialize_worker(initialize: Callable[..., None] | None, args: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if initialize:
        initialize(*args)


def _exit_with_parent() -> None:
    """End this process when its parent ends, even if that is killed; a pool's workers would otherwise wait forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

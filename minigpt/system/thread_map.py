"""Work divided among threads, for functions that do not hold Python's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield the result of `work` for each item, in order.

    Items are read only a little ahead, so they and the results need little memory. If the caller stops, for example
    because of Ctrl-C, then the work that has not begun is dropped.

    Args:
        work: the function, which each thread calls.
        items: its arguments.
        threads: how many threads; with 1 the caller's thread does the work.
    """
    if threads == 1:
        yield from map(work, items)
        return
    pool, running = ThreadPoolExecutor(threads), deque[Future[Result]]()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > 2 * threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

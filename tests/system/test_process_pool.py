"""Work in processes, or without them where the system refuses semaphores."""

import _multiprocessing
import errno
import multiprocessing.synchronize
import os
import threading

import pytest

from minigpt.system.process_pool import map_in_order, start_pool
from minigpt.system.warn_once import warn_once

assert multiprocessing.synchronize  # imported before a test replaces what it imports

_local = threading.local()


def _remember(number: int) -> None:
    _local.number = number


def _add_remembered(number: int) -> tuple[int, int]:
    return number + _local.number, os.getpid()


def test_workers_return_results_in_order() -> None:
    with start_pool(2, _remember, 10) as pool:
        results = list(map_in_order(pool, _add_remembered, range(5)))
    assert [result for result, _ in results] == [10, 11, 12, 13, 14]
    assert os.getpid() not in {process for _, process in results}


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.ENOSYS])
def test_one_thread_works_where_semaphores_are_refused(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_multiprocessing, "SemLock", refuse)  # as with a /dev/shm that is read-only or full
    warn_once.cache_clear()
    with pytest.warns(UserWarning, match=rf"/dev/shm \({os.strerror(number)}\): one thread does the work"):
        pool = start_pool(2, _remember, 10)
    with pool:
        results = list(map_in_order(pool, _add_remembered, range(5)))
    assert results == [(number + 10, os.getpid()) for number in range(5)]

"""Threads share work; the results come in order."""

import threading
from collections.abc import Iterator

import pytest

from minigpt.system.thread_map import map_in_threads


@pytest.mark.parametrize("threads", [1, 3])
def test_the_results_come_in_order(threads: int) -> None:
    assert list(map_in_threads(lambda n: n * n, range(50), threads)) == [n * n for n in range(50)]
    assert list(map_in_threads(str, [], threads)) == []


def test_two_threads_work_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=60)  # raises in a thread that is alone
    assert len([*map_in_threads(lambda n: meeting.wait(), range(2), 2)]) == 2


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_in_its_place(threads: int) -> None:
    results = map_in_threads(lambda n: 1 // n, [2, 1, 0, 3], threads)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_items_are_read_only_a_little_ahead() -> None:
    read = []

    def items() -> Iterator[int]:
        for n in range(1000):
            read.append(n)
            yield n

    results = map_in_threads(str, items(), 2)
    assert next(results) == "0"
    results.close()
    assert len(read) <= 5

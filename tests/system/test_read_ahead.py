"""Items are prepared by a thread while the last one is used."""

import threading
from collections.abc import Iterator

import pytest

from minigpt.system.read_ahead import read_ahead


def test_the_items_come_in_order() -> None:
    assert list(read_ahead(range(100))) == list(range(100))
    assert list(read_ahead([])) == []


def test_the_next_item_is_prepared_while_one_is_used() -> None:
    is_second_prepared = threading.Event()

    def prepare() -> Iterator[int]:
        yield 1
        is_second_prepared.set()
        yield 2

    items = read_ahead(prepare())
    assert next(items) == 1
    assert is_second_prepared.wait(timeout=60)
    assert list(items) == [2]


def test_an_exception_comes_in_its_place() -> None:
    def prepare() -> Iterator[int]:
        yield 1
        raise KeyError("the second")

    items = read_ahead(prepare())
    assert next(items) == 1
    with pytest.raises(KeyError, match="the second"):
        next(items)


def test_items_that_nobody_asks_for_are_not_prepared() -> None:
    prepared = []
    items = read_ahead(prepared.append(n) or n for n in range(1000))
    assert next(items) == 0
    items.close()
    assert len(prepared) <= 2

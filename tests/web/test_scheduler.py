"""Several requests on one thread: in turn, with an end for each, and none blocks another."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from minigpt.errors import DataError
from minigpt.web.api_errors import ApiError
from minigpt.web.scheduler import MAX_UNREAD, Scheduler

SECONDS = 60.0


def run(test: Callable[[Scheduler], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a scheduler that works."""

    async def main() -> None:
        scheduler = Scheduler()
        scheduler.start()
        try:
            await test(scheduler)
        finally:
            scheduler.stop()

    asyncio.run(main())


def test_items_come_in_order_and_on_one_thread() -> None:
    def steps() -> Iterator[tuple[int, int]]:
        for number in range(1000):
            yield number, threading.get_ident()

    async def test(scheduler: Scheduler) -> None:
        found = [item async for items in scheduler.stream(steps(), SECONDS) for item in items]
        assert [number for number, _ in found] == list(range(1000))
        assert len({thread for _, thread in found}) == 1 and found[0][1] != threading.get_ident()

    run(test)


def test_a_short_request_need_not_wait_for_a_long_one() -> None:
    async def test(scheduler: Scheduler) -> None:
        async with contextlib.aclosing(scheduler.stream(itertools.count(), SECONDS)) as endless:
            await anext(endless)
            assert await scheduler.call(lambda: "done", SECONDS) == "done"

    run(test)


def test_two_requests_are_computed_in_turn() -> None:
    order: list[str] = []

    def steps(name: str, other: threading.Event, own: threading.Event) -> Iterator[None]:
        order.append(name)
        own.set()
        while not other.is_set():  # ends only if the other one has its turn as well
            yield None

    async def read(stream: AsyncIterator[Any]) -> None:
        async for _ in stream:
            pass

    async def test(scheduler: Scheduler) -> None:
        a, b = threading.Event(), threading.Event()
        await asyncio.gather(
            read(scheduler.stream(steps("a", b, a), SECONDS)), read(scheduler.stream(steps("b", a, b), SECONDS))
        )
        assert order == ["a", "b"]

    run(test)


def test_a_request_that_nobody_reads_waits_and_is_closed_when_the_reader_leaves() -> None:
    computed, is_closed = [0], threading.Event()

    def steps() -> Iterator[int]:
        try:
            for number in itertools.count():
                computed[0] = number
                yield number
        finally:
            is_closed.set()

    async def test(scheduler: Scheduler) -> None:
        async with contextlib.aclosing(scheduler.stream(steps(), SECONDS)) as unread:
            await anext(unread)
            for _ in range(50):  # turns for the unread request, if it took them
                await scheduler.call(lambda: None, SECONDS)
            before = computed[0]
            for _ in range(50):
                await scheduler.call(lambda: None, SECONDS)
            assert computed[0] == before >= MAX_UNREAD
            assert not is_closed.is_set()
        await scheduler.call(lambda: None, SECONDS)
        assert is_closed.is_set()

    run(test)


def test_an_error_reaches_its_own_request_only() -> None:
    def fail() -> None:
        raise DataError("the text is wrong")

    async def test(scheduler: Scheduler) -> None:
        with pytest.raises(DataError, match="the text is wrong"):
            await scheduler.call(fail, SECONDS)
        assert await scheduler.call(lambda: 1, SECONDS) == 1

    run(test)


def test_a_request_that_takes_too_long_ends_with_503() -> None:
    async def test(scheduler: Scheduler) -> None:
        with pytest.raises(ApiError) as refused:
            async for _ in scheduler.stream(itertools.count(), 0.2):
                pass
        assert (refused.value.status, refused.value.code) == (503, "timeout")

    run(test)


def test_stopping_ends_every_stream_with_an_error() -> None:
    async def test(scheduler: Scheduler) -> None:
        async def read() -> int:
            with pytest.raises(ApiError) as refused:
                async for _ in scheduler.stream(itertools.count(), SECONDS):
                    started.set()
            return refused.value.status

        started = asyncio.Event()
        reader = asyncio.create_task(read())
        await started.wait()
        scheduler.stop()
        assert await reader == 503
        with pytest.raises(ApiError, match="stopping"):
            await scheduler.call(lambda: 1, SECONDS)

    run(test)

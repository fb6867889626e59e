"""Compute several requests on one thread, in turn.

A request's work is an iterator: each step computes one item, such as a token. The thread takes the requests one after
another and lets each compute for a few milliseconds. So a short request need not wait for the end of a long one, and no
two requests use a model at the same time. The kernels use several cores for a step, so one thread is enough.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Generic, TypeVar

from minigpt.web.api_errors import ApiError

SLICE = 0.02  # seconds that a request may compute before the next one has its turn
MAX_UNREAD = 4096  # items that a client has not read yet, after which its request waits
T = TypeVar("T")
logger = logging.getLogger(__name__)


class _Job(Generic[T]):
    """An iterator and the items that it has computed. All attributes but `steps` belong to the event loop's thread."""

    def __init__(self, steps: Iterator[T], loop: asyncio.AbstractEventLoop) -> None:
        self.steps, self.loop = steps, loop
        self.items: list[T] = []
        self.has_news = asyncio.Event()
        self.is_queued = self.is_finished = False
        self.error: Exception | None = None
        self.is_abandoned = False  # set here, read by the computing thread


class Scheduler:
    """Runs iterators in turn on a thread of its own."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._jobs: set[_Job[Any]] = set()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._compute, name="minigpt-compute", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End all streams with an error, after the steps that are being computed. Must be called by the event loop."""
        self._is_stopping = True
        for job in self._jobs:
            job.error = job.error or _stopping()
            job.is_finished = job.is_abandoned = True
            job.has_news.set()
        self._waiting.put(None)

    async def call(self, function: Callable[[], T], seconds: float) -> T:
        """Compute one value.

        Args:
            function: computes it.
            seconds: the time it may take, the time of waiting for others included.

        Raises:
            ApiError: the time is over, or the server stops.
        """

        def steps() -> Iterator[T]:
            yield function()

        async with contextlib.aclosing(self.stream(steps(), seconds)) as results:
            return (await anext(results))[0]

    async def stream(self, steps: Iterator[T], seconds: float) -> AsyncGenerator[list[T]]:
        """Compute the items of an iterator.

        The iterator's `close` is called on the computing thread when the caller no longer reads.

        Args:
            steps: the iterator. It is only used by the computing thread.
            seconds: the time it may take, the time of waiting for others included.

        Yields:
            The items that were computed since the last time, at least one.

        Raises:
            ApiError: the time is over, or the server stops.
        """
        if self._is_stopping:
            raise _stopping()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        job = _Job(steps, loop)
        self._jobs.add(job)
        try:
            while True:
                if not job.is_queued and not job.is_finished and len(job.items) < MAX_UNREAD:
                    job.is_queued = True
                    self._waiting.put(job)
                if items := job.items:
                    job.items = []
                    yield items
                elif job.error:
                    raise job.error
                elif job.is_finished:
                    return
                else:
                    job.has_news.clear()
                    await _wait_until(job.has_news, deadline)
                if loop.time() > deadline and not job.is_finished:
                    message = f"the request took longer than {seconds:g} seconds: ask for less"
                    raise ApiError(503, message, code="timeout")
        finally:
            self._jobs.discard(job)
            job.is_abandoned = True
            if not job.is_queued:
                self._waiting.put(job)  # to be closed

    def _compute(self) -> None:
        """Run the thread: a slice of each waiting job in turn."""
        while (job := self._waiting.get()) is not None:
            if job.is_abandoned:
                _close(job.steps)
                continue
            items, is_finished, error = _run_slice(job)
            try:
                job.loop.call_soon_threadsafe(self._receive, job, items, is_finished, error)
            except RuntimeError:  # the event loop has ended
                return

    def _receive(self, job: _Job[T], items: list[T], is_finished: bool, error: Exception | None) -> None:
        """Take a slice's items on the event loop's thread, and queue the job again unless it must wait for a reader."""
        job.items += items
        job.is_queued = False
        if not job.is_finished:
            job.is_finished, job.error = is_finished, error
        if (not job.is_finished and len(job.items) < MAX_UNREAD) or job.is_abandoned:
            job.is_queued = True
            self._waiting.put(job)
        job.has_news.set()


def _run_slice(job: _Job[T]) -> tuple[list[T], bool, Exception | None]:
    """Compute items for the time of a slice. Return them, whether the iterator ended, and its error."""
    items: list[T] = []
    end = time.monotonic() + SLICE
    try:
        while not job.is_abandoned:
            items.append(next(job.steps))
            if time.monotonic() >= end:
                break
    except StopIteration:
        return items, True, None
    except Exception as error:
        if not isinstance(error, ApiError) and ApiError.from_exception(error).code == "internal_error":
            logger.exception("a request failed")
        return items, True, error
    return items, False, None


def _close(steps: Iterator[Any]) -> None:
    """Close an iterator that nobody reads any more."""
    if close := getattr(steps, "close", None):
        try:
            close()
        except Exception:
            logger.exception("a request failed while it was ended")


async def _wait_until(event: asyncio.Event, deadline: float) -> None:
    """Wait for an event, but not longer than to a time of the event loop's clock."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await event.wait()


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping: start it again", code="stopping")

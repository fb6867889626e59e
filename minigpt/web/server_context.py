"""What every endpoint needs: the served runs, the computing thread, the limits, and how answers are streamed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from minigpt.errors import MinigptError
from minigpt.runs.run import Run
from minigpt.system.advice import advise_page
from minigpt.web.api_errors import ApiError
from minigpt.web.request_fields import RequestFields
from minigpt.web.scheduler import Scheduler
from minigpt.web.served_runs import ServedRuns
from minigpt.web.settings import Limits
from minigpt.web.training_texts import TrainingTexts
from minigpt.web.trainings import Trainings

EVENT_STREAM = "text/event-stream"
END_OF_STREAM = "data: [DONE]\n\n"
MAX_NAME = 300  # characters of a run's name
T = TypeVar("T")


@dataclass(frozen=True)
class ServerContext:
    """What every endpoint needs.

    Attributes:
        runs: the served runs.
        scheduler: computes the requests.
        limits: the largest requests.
        trainings: the trainings in the folder of the served runs.
        training_texts: the training texts that were searched last.
        forecasting: held while a forecast is made: two at once would time each other.
    """

    runs: ServedRuns
    scheduler: Scheduler
    limits: Limits
    trainings: Trainings
    training_texts: TrainingTexts = field(default_factory=TrainingTexts)
    forecasting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open_run(self, fields: RequestFields) -> Run:
        """Return the run that the field `model` names. Other requests are computed while it is read from disk.

        Raises:
            ApiError: no such run is served.
            MinigptError: the run cannot be opened.
        """
        name = fields.read_text("model", MAX_NAME)
        return await self.read(lambda: self.runs.open(name))

    async def read(self, function: Callable[[], T]) -> T:
        """Return the result of a function that reads files, while other requests are computed."""

        def read() -> T:
            with advise_page():
                return function()

        return await asyncio.to_thread(read)

    async def compute(self, request: Request, function: Callable[[], T]) -> T:
        """Compute one value on the computing thread.

        Raises:
            ApiError: it takes too long, the server stops, or the client has hung up.
        """
        return await finish_unless_gone(request, self.scheduler.call(function, self.limits.seconds))

    async def compute_all(self, request: Request, steps: Iterator[T]) -> list[T]:
        """Compute all items of an iterator on the computing thread; errors are those of `compute`."""

        async def collect() -> list[T]:
            async with contextlib.aclosing(self.stream(steps)) as slices:
                return [item async for items in slices for item in items]

        return await finish_unless_gone(request, collect())

    def stream(self, steps: Iterator[T]) -> AsyncGenerator[list[T]]:
        """Compute the items of an iterator on the computing thread; as `Scheduler.stream`."""
        return self.scheduler.stream(steps, self.limits.seconds)


async def finish_unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for a result, but stop the work at once if the client hangs up.

    Raises:
        ApiError: the client has hung up. Nobody reads this error.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_wait_for_hang_up(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "the client hung up", code="client_closed_request")
    finally:
        watcher.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ApiError, MinigptError):
            await task


async def _wait_for_hang_up(request: Request) -> None:
    """Wait until the client closes the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def format_event(content: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(content)}\n\n"


class EventStream(StreamingResponse):
    """An answer of server-sent events. Its computation ends with the answer, also if the client hangs up."""

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events, media_type=EVENT_STREAM)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def stream_events(request: Request, events: AsyncGenerator[dict[str, Any]]) -> EventStream:
    """Return a streamed answer, which ends with `[DONE]`.

    The first event is computed before the answer begins. So an error at the start gets an HTTP status. A later error is
    an event of the stream.

    Args:
        request: the request, whose body has been read.
        events: the objects of the events, at least one.
    """
    try:
        first = await finish_unless_gone(request, anext(events))
    except BaseException:
        await events.aclose()
        raise

    async def write() -> AsyncGenerator[str]:
        async with contextlib.aclosing(events):
            try:
                yield format_event(first)
                async for event in events:
                    yield format_event(event)
            except Exception as error:  # the scheduler has logged it if it is unexpected
                yield format_event(ApiError.from_exception(error).to_dict())
            yield END_OF_STREAM

    return EventStream(write())

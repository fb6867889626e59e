"""The request that compares runs by their losses on the same text (docs/web_api.md)."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from minigpt.errors import MinigptError
from minigpt.studies.text_loss import TextLoss, find_common_text, stream_text_losses
from minigpt.web.api_errors import ApiError
from minigpt.web.request_fields import RequestFields
from minigpt.web.server_context import MAX_NAME, ServerContext, stream_events

MAX_RUNS = 16  # that one request compares


async def measure_losses(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/losses`."""
    fields = await RequestFields.read(request, context.limits)
    names = fields.read_texts("models", MAX_RUNS, MAX_NAME)
    if not names:
        raise ApiError(400, "models must name at least one run", "models")
    if fields.get("text") is None:
        text = await _find_common_text(context, names)
    else:
        text = fields.read_text("text", context.limits.prompt_characters)
    return await stream_events(request, _list_events(context, names, text))


async def _find_common_text(context: ServerContext, names: list[str]) -> str:
    """Return the beginning of the validation text that all runs have, as long as the server allows a text to be."""

    def find() -> str:
        return find_common_text({name: context.runs.open(name) for name in names}, context.limits.prompt_characters)

    try:
        return await context.read(find)
    except MinigptError as error:
        raise ApiError.from_exception(error, "models") from None


async def _list_events(context: ServerContext, names: list[str], text: str) -> AsyncGenerator[dict[str, Any]]:
    """Yield the length of the text, then what was measured for each run."""
    yield {"characters": len(text)}
    for name in names:
        try:
            result = await _measure(context, name, text)
        except (ApiError, MinigptError) as error:
            yield {"model": name, **_NO_RESULT, "reason": ApiError.from_exception(error).message}
            continue
        measured = {"bits_per_byte": result.bits_per_byte, "loss": result.loss, "predictions": result.predictions}
        yield {"model": name, **measured, "reason": None}


_NO_RESULT = {"bits_per_byte": None, "loss": None, "predictions": None}


async def _measure(context: ServerContext, name: str, text: str) -> TextLoss:
    run = await context.read(lambda: context.runs.open(name))
    total = TextLoss()
    async with contextlib.aclosing(context.stream(stream_text_losses(run, text))) as slices:
        async for parts in slices:
            total = sum(parts, total)
    return total

"""The playground's requests about text: tokens, the next token, generated text and chat (docs/web_api.md)."""

import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minigpt.errors import MinigptError
from minigpt.runs.chat import encode_conversation
from minigpt.runs.run import Run
from minigpt.studies.next_token import NextTokenDistribution, next_token_distribution
from minigpt.studies.token_stream import GeneratedToken, stream_tokens
from minigpt.web.api_errors import ApiError
from minigpt.web.chat_completions import DEFAULT_TOKENS, read_messages
from minigpt.web.playground_fields import describe_tokens, read_heads_off, read_ids, read_top
from minigpt.web.prompts import read_sampling
from minigpt.web.request_fields import RequestFields
from minigpt.web.server_context import ServerContext, stream_events


async def tokenize(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/tokenize`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    if fields.get("ids") is not None:
        raise ApiError(400, "tokenize takes a text and no ids: send text", "ids")
    ids = read_ids(fields, run, context.limits, fills_empty=False)
    return JSONResponse({"tokens": describe_tokens(run, ids)})


async def predict_next(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/next`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    ids, heads_off, top = read_ids(fields, run, context.limits), read_heads_off(fields, run), read_top(fields)
    sampling = read_sampling(fields, 1)
    filters = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")}
    expected = await context.compute(request, lambda: next_token_distribution(run, ids, heads_off=heads_off, **filters))
    answer = {
        "candidates": _describe_candidates(run, expected, top),
        "entropy": expected.entropy,
        "filtered_entropy": expected.filtered_entropy,
    }
    return JSONResponse(answer)


def _describe_candidates(run: Run, expected: NextTokenDistribution, top: int) -> list[dict[str, Any]]:
    """Return the most likely tokens, with their probabilities before and after the filters."""
    probabilities, ids = expected.probabilities.topk(min(top, len(expected.probabilities)))
    columns = describe_tokens(run, ids.tolist()), probabilities.tolist(), expected.filtered[ids].tolist()
    return [
        {**token, "probability": before, "filtered_probability": after}
        for token, before, after in zip(*columns, strict=True)
    ]


async def generate(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/generate`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    return await _stream_answer(request, context, fields, run, read_ids(fields, run, context.limits))


async def chat(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/chat`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    turns = read_messages(fields, context.limits)
    try:
        ids = encode_conversation(run, turns)
    except MinigptError as error:
        raise ApiError.from_exception(error, "messages") from None
    return await _stream_answer(request, context, fields, run, ids)


async def _stream_answer(
    request: Request, context: ServerContext, fields: RequestFields, run: Run, ids: list[int]
) -> Response:
    """Stream the tokens that continue `ids`, sampled as the request's fields say."""
    most = context.limits.max_tokens
    max_tokens = fields.read_integer("max_tokens", min(DEFAULT_TOKENS, most), 1, most)
    sampling, heads_off = read_sampling(fields, max_tokens), read_heads_off(fields, run)
    steps = stream_tokens(run, ids, sampling, set(run.tokenizer.special_tokens.values()), heads_off)
    return await stream_events(request, _list_events(context, run, steps, max_tokens))


async def _list_events(
    context: ServerContext, run: Run, steps: Iterator[GeneratedToken], max_tokens: int
) -> AsyncGenerator[dict[str, Any]]:
    """Yield an event for each slice of tokens, and one that says why the text ended."""
    count = 0
    async with contextlib.aclosing(context.stream(steps)) as slices:
        async for tokens in slices:
            count += len(tokens)
            yield {"tokens": _describe_generated(run, tokens)}
    yield {"finish_reason": "length" if count == max_tokens else "stop"}


def _describe_generated(run: Run, tokens: Sequence[GeneratedToken]) -> list[dict[str, Any]]:
    described = describe_tokens(run, (token.id for token in tokens))
    return [
        {**text, "probability": token.probability, "rank": token.rank}
        for text, token in zip(described, tokens, strict=True)
    ]

"""`POST /v1/chat/completions` of OpenAI's API: answer the last message of a conversation."""

import contextlib
import os
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minigpt.errors import MinigptError
from minigpt.runs.chat import encode_conversation
from minigpt.runs.run import Run
from minigpt.tokenizers.chat_format import ROLE_TOKENS, Turn
from minigpt.web.api_errors import ApiError
from minigpt.web.completions import (
    MAX_STOP,
    MAX_TOP_LOGPROBS,
    Choice,
    CompletionRequest,
    count_usage,
    read_usage_option,
)
from minigpt.web.prompts import make_seeds, read_sampling, refuse_unsupported
from minigpt.web.request_fields import RequestFields
from minigpt.web.server_context import ServerContext, stream_events
from minigpt.web.settings import Limits
from minigpt.web.text_generation import TextPiece, TokenScore

DEFAULT_TOKENS = 500  # OpenAI's API has no default here
MAX_MESSAGES = 1000


async def answer_chat(request: Request, context: ServerContext) -> Response:
    """Answer `POST /v1/chat/completions`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    wanted = read_chat_request(fields, run, context.limits)
    head = {"id": f"chatcmpl-{os.urandom(12).hex()}", "created": int(time.time()), "model": fields.get("model")}
    if wanted.is_streamed:
        return await stream_events(request, _stream_chunks(context, wanted, head))
    choices, new_tokens = [], 0
    for choice in wanted.choices:
        pieces = await context.compute_all(request, wanted.generate(choice))
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        choices.append(
            {
                "index": choice.index,
                "message": message,
                "logprobs": _format_scores(pieces, wanted.top),
                "finish_reason": pieces[-1].finish_reason,
            }
        )
        new_tokens += sum(piece.tokens for piece in pieces)
    usage = count_usage(wanted.choices, new_tokens)
    return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage})


def read_chat_request(fields: RequestFields, run: Run, limits: Limits) -> CompletionRequest:
    """Check a request's fields.

    Raises:
        ApiError: a field has a wrong value, or asks for more than the limits allow.
    """
    refuse_unsupported(fields)
    name = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    max_tokens = fields.read_integer(name, min(DEFAULT_TOKENS, limits.max_tokens), 1, limits.max_tokens)
    sampling = read_sampling(fields, max_tokens)
    top = fields.read_optional_integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    has_scores = fields.read_flag("logprobs")
    if top is not None and not has_scores:
        raise ApiError(400, f"top_logprobs is {top} without logprobs: set logprobs to true", "top_logprobs")
    turns = read_messages(fields, limits)
    try:
        ids = encode_conversation(run, turns)
    except MinigptError as error:
        raise ApiError.from_exception(error, "messages") from None
    seeds = make_seeds(sampling.seed or 0, fields.read_integer("n", 1, 1, limits.choices))
    return CompletionRequest(
        run=run,
        choices=[Choice(number, ids, "", seed) for number, seed in enumerate(seeds)],
        sampling=sampling,
        max_tokens=max_tokens,
        stops=fields.read_texts("stop", limits.stop_texts, MAX_STOP),
        top=(top or 0) if has_scores else None,
        has_echo=False,
        is_streamed=fields.read_flag("stream"),
        has_usage=read_usage_option(fields),
    )


def read_messages(fields: RequestFields, limits: Limits) -> list[Turn]:
    """Return the turns of the field `messages`; the last one is the user's.

    Raises:
        ApiError: it is not a list of messages with a role and a text.
    """
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise fields.refuse("messages", "a list of messages")
    if len(messages) > MAX_MESSAGES:
        raise ApiError(413, f"messages has {len(messages):,} entries, and the limit is {MAX_MESSAGES:,}", "messages")
    turns = [_read_message(message, f"messages[{number}]") for number, message in enumerate(messages)]
    if sum(len(turn.text) for turn in turns) > limits.prompt_characters:
        raise ApiError(413, f"messages have more than {limits.prompt_characters:,} characters", "messages")
    if turns[-1].role != "user":
        raise ApiError(400, f"the last message must be the user's, not the {turns[-1].role}'s", "messages")
    return turns


def _read_message(message: Any, name: str) -> Turn:
    """Return a message's turn. Its content is a text, or a list of parts that are texts."""
    if not isinstance(message, dict):
        raise ApiError(400, f"{name} must be an object with a role and a content", name)
    role = message.get("role")
    if role == "developer":  # the newer name of the system
        role = "system"
    if not isinstance(role, str) or role not in ROLE_TOKENS:
        roles = ", ".join(ROLE_TOKENS)
        raise ApiError(400, f"{name}.role must be one of {roles}, not {str(role)[:100]!r}", f"{name}.role")
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        parts = [text for text in texts if isinstance(text, str)]
        content = "".join(parts) if len(parts) == len(content) else None
    if not isinstance(content, str):
        raise ApiError(400, f"{name}.content must be a text, or a list of parts of type text", f"{name}.content")
    return Turn(role, content)


async def _stream_chunks(
    context: ServerContext, wanted: CompletionRequest, head: dict[str, Any]
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of a streamed answer, one choice after another."""
    head = {**head, "object": "chat.completion.chunk"}
    usage = {"usage": None} if wanted.has_usage else {}
    new_tokens = 0
    for choice in wanted.choices:
        delta: dict[str, str] = {"role": "assistant", "content": ""}  # only in the first chunk
        async with contextlib.aclosing(context.stream(wanted.generate(choice))) as slices:
            async for pieces in slices:
                new_tokens += sum(piece.tokens for piece in pieces)
                text, end = "".join(piece.text for piece in pieces), pieces[-1].finish_reason
                if text or end or delta:
                    delta |= {"content": text} if text else {}
                    scores = _format_scores(pieces, wanted.top)
                    part = {"index": choice.index, "delta": delta, "logprobs": scores, "finish_reason": end}
                    yield {**head, "choices": [part], **usage}
                    delta = {}
    if wanted.has_usage:
        yield {**head, "choices": [], "usage": count_usage(wanted.choices, new_tokens)}


def _format_scores(pieces: Sequence[TextPiece], top: int | None) -> dict[str, Any] | None:
    """Return the scores of the tokens in OpenAI's form, or None if they were not asked for."""
    if top is None:
        return None
    return {"content": [_format_score(score) for piece in pieces for score in piece.scores], "refusal": None}


def _format_score(score: TokenScore) -> dict[str, Any]:
    """Return one token's score."""
    likeliest = [{"token": text, "bytes": list(data), "logprob": value} for text, data, value in score.top]
    return {
        "token": score.text,
        "bytes": list(score.utf8),
        "logprob": score.log_probability,
        "top_logprobs": likeliest,
    }

"""`POST /v1/completions` of OpenAI's API: continue texts."""

import contextlib
import itertools
import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minigpt.config import SamplingConfig
from minigpt.runs.run import Run
from minigpt.web.api_errors import ApiError
from minigpt.web.prompt_scores import score_prompt
from minigpt.web.prompts import make_seeds, read_prompts, read_sampling, refuse_unsupported
from minigpt.web.request_fields import RequestFields
from minigpt.web.server_context import ServerContext, stream_events
from minigpt.web.settings import Limits
from minigpt.web.text_generation import TextPiece, TokenScore, generate_text

MAX_TOP_LOGPROBS = 20
MAX_STOP = 1000  # characters of a stop sequence
DEFAULT_TOKENS = 16  # as in OpenAI's API


@dataclass(frozen=True)
class Choice:
    """One text to generate.

    Attributes:
        index: its number in the answer.
        ids: the prompt.
        prompt: the prompt's text.
        seed: of its random numbers.
    """

    index: int
    ids: list[int]
    prompt: str
    seed: int


@dataclass(frozen=True)
class CompletionRequest:
    """A request, checked.

    Attributes:
        run: the run that answers.
        choices: the texts to generate.
        sampling: how; each choice has its own seed.
        max_tokens: new tokens of each choice; 0 only scores the prompt.
        stops: stop sequences.
        top: how many of the most likely tokens each score lists; None for no scores.
        has_echo: whether the answer begins with the prompt.
        is_streamed: whether the answer comes in pieces.
        has_usage: whether a streamed answer ends with the numbers of tokens.
    """

    run: Run
    choices: Sequence[Choice]
    sampling: SamplingConfig
    max_tokens: int
    stops: Sequence[str]
    top: int | None
    has_echo: bool
    is_streamed: bool
    has_usage: bool

    def generate(self, choice: Choice) -> Iterator[TextPiece]:
        """Yield the pieces of one choice, those of the prompt first if it is echoed."""
        if self.has_echo:
            scores = () if self.top is None else tuple(score_prompt(self.run, choice.ids, self.top))
            yield TextPiece(choice.prompt, 0, scores)
        if self.max_tokens == 0:
            yield TextPiece("", 0, finish_reason="length")
            return
        config = replace(self.sampling, seed=choice.seed)
        yield from generate_text(self.run, choice.ids, config, self.stops, self.top)


async def complete(request: Request, context: ServerContext) -> Response:
    """Answer `POST /v1/completions`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    wanted = read_completion_request(fields, run, context.limits)
    head = {
        "id": f"cmpl-{os.urandom(12).hex()}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": fields.get("model"),
    }
    if wanted.is_streamed:
        return await stream_events(request, _stream_chunks(context, wanted, head))
    choices, new_tokens = [], 0
    for choice in wanted.choices:
        pieces = await context.compute_all(request, wanted.generate(choice))
        choices.append(_format_choice(choice, pieces, wanted.top))
        new_tokens += sum(piece.tokens for piece in pieces)
    return JSONResponse({**head, "choices": choices, "usage": count_usage(wanted.choices, new_tokens)})


def read_completion_request(fields: RequestFields, run: Run, limits: Limits) -> CompletionRequest:
    """Check a request's fields.

    Raises:
        ApiError: a field has a wrong value, or asks for more than the limits allow.
    """
    refuse_unsupported(fields)
    has_echo = fields.read_flag("echo")
    max_tokens = fields.read_integer("max_tokens", DEFAULT_TOKENS, 0 if has_echo else 1, limits.max_tokens)
    sampling = read_sampling(fields, max_tokens)
    prompts = read_prompts(fields, run, limits)
    n = fields.read_integer("n", 1, 1, limits.choices)
    if len(prompts) * n > limits.choices:
        raise ApiError(400, f"n is {n} for {len(prompts)} prompts, and the limit is {limits.choices} texts", "n")
    best_of = fields.read_integer("best_of", n, n, limits.choices)
    if best_of != n:
        raise ApiError(400, f"best_of is not supported beyond n, {n}: leave it out", "best_of", "unsupported_parameter")
    seeds = make_seeds(sampling.seed or 0, n) * len(prompts)
    texts = [prompt for prompt in prompts for _ in range(n)]
    choices = [Choice(i, ids, text, seeds[i]) for i, (ids, text) in enumerate(texts)]
    return CompletionRequest(
        run=run,
        choices=choices,
        sampling=sampling,
        max_tokens=max_tokens,
        stops=fields.read_texts("stop", limits.stop_texts, MAX_STOP),
        top=fields.read_optional_integer("logprobs", 0, MAX_TOP_LOGPROBS),
        has_echo=has_echo,
        is_streamed=fields.read_flag("stream"),
        has_usage=read_usage_option(fields),
    )


def read_usage_option(fields: RequestFields) -> bool:
    """Return whether a streamed answer ends with the numbers of tokens: the field `stream_options.include_usage`."""
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise fields.refuse("stream_options", "an object")
    return RequestFields(options).read_flag("include_usage")


def count_usage(choices: Sequence[Choice], new_tokens: int) -> dict[str, int]:
    """Return the numbers of tokens of an answer. A prompt with several choices counts once."""
    prompt_tokens = sum(len(ids) for ids in {id(choice.ids): choice.ids for choice in choices}.values())
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }


async def _stream_chunks(
    context: ServerContext, wanted: CompletionRequest, head: dict[str, Any]
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of a streamed answer, one choice after another."""
    new_tokens = 0
    usage = {"usage": None} if wanted.has_usage else {}
    for choice in wanted.choices:
        offset = 0
        async with contextlib.aclosing(context.stream(wanted.generate(choice))) as slices:
            async for pieces in slices:
                new_tokens += sum(piece.tokens for piece in pieces)
                if any(piece.text or piece.scores or piece.finish_reason for piece in pieces):
                    yield {**head, "choices": [_format_choice(choice, pieces, wanted.top, offset)], **usage}
                offset += sum(len(piece.text) for piece in pieces)
    if wanted.has_usage:
        yield {**head, "choices": [], "usage": count_usage(wanted.choices, new_tokens)}


def _format_choice(choice: Choice, pieces: Sequence[TextPiece], top: int | None, offset: int = 0) -> dict[str, Any]:
    """Return a choice, or a part of it that begins `offset` characters after the choice's beginning."""
    scores = [score for piece in pieces for score in piece.scores]
    return {
        "index": choice.index,
        "text": "".join(piece.text for piece in pieces),
        "logprobs": None if top is None else _format_scores(scores, offset),
        "finish_reason": pieces[-1].finish_reason,
    }


def _format_scores(scores: Sequence[TokenScore], offset: int) -> dict[str, Any]:
    """Return the scores of a choice's tokens as lists, in OpenAI's older form."""
    offsets = [offset, *itertools.accumulate((len(score.text) for score in scores), initial=offset)][1:-1]
    return {
        "tokens": [score.text for score in scores],
        "token_logprobs": [score.log_probability for score in scores],
        "top_logprobs": [{text: value for text, _, value in score.top} if score.top else None for score in scores],
        "text_offset": offsets if scores else [],
    }

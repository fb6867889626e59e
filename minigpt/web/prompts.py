"""Read from a request what to continue, and how to sample."""

import os
from typing import Any

from minigpt.config import SamplingConfig
from minigpt.errors import DataError
from minigpt.runs.run import Run
from minigpt.web.api_errors import ApiError
from minigpt.web.request_fields import RequestFields
from minigpt.web.settings import Limits

MAX_TEMPERATURE = 100.0
MAX_SEED = 2**63 - 1
MAX_TOP_K = 2**31
NEUTRAL = {  # fields of OpenAI's API that this program does not have, and the values that change nothing
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
}


def refuse_unsupported(fields: RequestFields) -> None:
    """Raise ApiError for a field of OpenAI's API that would change the answer and that this program does not have."""
    fields.refuse_unsupported(**NEUTRAL)


def read_sampling(fields: RequestFields, max_tokens: int) -> SamplingConfig:
    """Return how to sample, as the fields say; `max_tokens` is the number of new tokens.

    Raises:
        ApiError: a field has a wrong value.
    """
    temperature = fields.read_optional_number("temperature", 0.0, MAX_TEMPERATURE)
    top_p = fields.read_optional_number("top_p", 0.0, 1.0)
    if top_p == 0:
        raise fields.refuse("top_p", "a number above 0 and at most 1")
    top_k = fields.read_optional_integer("top_k", 1, MAX_TOP_K)
    return SamplingConfig(
        max(1, max_tokens), 1.0 if temperature is None else temperature, top_k, top_p, read_seed(fields)
    )


def read_seed(fields: RequestFields) -> int:
    """Return the field `seed`, or a random seed."""
    seed = fields.read_optional_integer("seed", 0, MAX_SEED)
    return int.from_bytes(os.urandom(4), "big") if seed is None else seed


def make_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of several choices: the first is the request's own."""
    return [(seed + number) % (MAX_SEED + 1) for number in range(count)]


def read_prompts(fields: RequestFields, run: Run, limits: Limits) -> list[tuple[list[int], str]]:
    """Return the token ids and the text of each prompt.

    The field `prompt` is a text, a list of texts, a list of token ids, or a list of such lists.

    Raises:
        ApiError: it is something else, too long, or cannot be encoded.
    """
    value = fields.get("prompt")
    wanted = "a text, a list of texts, a list of token ids or a list of such lists"
    if value is None or isinstance(value, str):
        value = [value or ""]
    if not isinstance(value, list) or not value:
        raise fields.refuse("prompt", wanted)
    if all(isinstance(each, int) and not isinstance(each, bool) for each in value):
        value = [value]
    if len(value) > limits.choices:
        raise ApiError(400, f"prompt has {len(value)} texts, and the limit is {limits.choices}", "prompt")
    prompts = []
    for each in value:
        if not isinstance(each, str | list):
            raise fields.refuse("prompt", wanted)
        if len(each) > limits.prompt_characters:
            length = f"{len(each):,} {'characters' if isinstance(each, str) else 'tokens'}"
            raise ApiError(413, f"prompt has {length}, and the limit is {limits.prompt_characters:,}", "prompt")
        prompts.append(encode_prompt(run, each) if isinstance(each, str) else (check_ids(run, each, "prompt"), None))
    return [(ids, run.tokenizer.decode(ids) if text is None else text) for ids, text in prompts]


def encode_prompt(run: Run, text: str, param: str = "prompt") -> tuple[list[int], str]:
    """Return the token ids of a prompt, and its text. An empty prompt becomes the run's start token.

    Raises:
        ApiError: a character is not in the vocabulary.
    """
    try:
        return run.encode_prompt(text), text
    except DataError as error:
        raise ApiError.from_exception(error, param) from None


def check_ids(run: Run, ids: list[Any], param: str) -> list[int]:
    """Return token ids that a client sent.

    Raises:
        ApiError: an id is not in the vocabulary, or there is none.
    """
    size = run.tokenizer.vocab_size
    for each in ids:
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < size:
            raise ApiError(
                400, f"{param} has the token id {str(each)[:20]!r}, and the ids go from 0 to {size - 1}", param
            )
    if not ids:
        raise ApiError(400, f"{param} has no token ids: send at least one", param)
    return ids

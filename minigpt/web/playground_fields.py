"""What the playground's requests have in common: a text or token ids, heads that are off, and tokens in answers."""

from collections.abc import Iterable
from typing import Any

from minigpt.config_fields import format_value
from minigpt.errors import MinigptError
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import require_heads
from minigpt.web.api_errors import ApiError
from minigpt.web.prompts import check_ids
from minigpt.web.request_fields import RequestFields
from minigpt.web.settings import Limits

DEFAULT_TOP, MAX_TOP = 20, 100  # tokens in a list of the most likely ones
Head = tuple[int, int]  # block and head, from 0


def read_ids(fields: RequestFields, run: Run, limits: Limits, fills_empty: bool = True) -> list[int]:
    """Return the token ids of the field `text`, or those of the field `ids`.

    Args:
        fields: the request's fields.
        run: the run whose tokenizer encodes the text.
        limits: the longest text.
        fills_empty: whether an empty text becomes the run's start token.

    Raises:
        ApiError: both fields are missing, or both are there; a field is too long, or cannot be encoded.
    """
    ids = fields.get("ids")
    if ids is None:
        text = fields.read_text("text", limits.prompt_characters)
        try:
            return run.encode_prompt(text) if fills_empty else run.tokenizer.encode(text)
        except MinigptError as error:
            raise ApiError.from_exception(error, "text") from None
    if fields.get("text") is not None:
        raise ApiError(400, "the request has both text and ids: send one of them", "ids")
    if not isinstance(ids, list):
        raise fields.refuse("ids", "a list of token ids")
    if len(ids) > limits.prompt_characters:
        raise ApiError(413, f"ids has {len(ids):,} tokens, and the limit is {limits.prompt_characters:,}", "ids")
    return check_ids(run, ids, "ids")


def read_heads_off(fields: RequestFields, run: Run) -> set[Head]:
    """Return the heads of the field `heads_off`.

    Raises:
        ApiError: it is not a list of pairs, or the model does not have one of the heads.
    """
    value = fields.get("heads_off")
    if value is None:
        return set()
    wanted = "a list of pairs [block, head]"
    if not isinstance(value, list):
        raise fields.refuse("heads_off", wanted)
    heads = set()
    for pair in value:
        is_pair = isinstance(pair, list) and len(pair) == 2
        if not is_pair or not all(isinstance(number, int) and not isinstance(number, bool) for number in pair):
            raise ApiError(400, f"heads_off must be {wanted}, and one entry is {format_value(pair)}", "heads_off")
        heads.add((pair[0], pair[1]))
    try:
        require_heads(run.model, heads)
    except MinigptError as error:
        raise ApiError.from_exception(error, "heads_off") from None
    return heads


def read_top(fields: RequestFields) -> int:
    """Return the field `top`: how many of the most likely tokens an answer lists."""
    return fields.read_integer("top", DEFAULT_TOP, 1, MAX_TOP)


def describe_tokens(run: Run, ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return tokens in the form of the API. U+FFFD stands for a token that is a part of a character."""
    return [{"id": i, "text": run.tokenizer.decode([i])} for i in ids]

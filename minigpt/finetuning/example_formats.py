"""The formats in which data sets hold conversations, converted to messages that have a role and a content.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
    {"prompt": "Hi", "completion": "Ho"}                          each also a list of messages
    {"instruction": "Say hi", "input": "to Ann", "output": "Hi Ann", "system": "Be kind", "history": [["a", "b"]]}

A field that changes what an example means is honored, or refused by its name: it is never ignored.
"""

from typing import Any

from minigpt.errors import DataError
from minigpt.tokenizers.chat_format import ROLE_TOKENS, Turn

FORMATS = ({"messages"}, {"conversations"}, {"prompt", "completion"}, {"instruction", "output"})
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_UNSUPPORTED = ("tools", "functions", "images", "image", "audio", "audios", "videos", "weight")
_UNSUPPORTED_IN_MESSAGE = (
    *("tool_calls", "function_call", "tool_call_id", "name", "audio", "refusal", "prefix"),
    *("train", "loss", "mask"),
)
_NOTHING: tuple[Any, ...] = (None, "", [], {})


def is_example(row: Any) -> bool:
    """Return True if a row of JSON has the fields of one of the formats."""
    return isinstance(row, dict) and any(names <= row.keys() for names in FORMATS)


def convert_to_messages(row: Any, where: str) -> list[Any]:
    """Return the messages of a row, which may still be of any kind. Raise DataError if it has none of the formats."""
    if not is_example(row):
        names = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
        what = f"has none of {', '.join(' and '.join(sorted(each)) for each in FORMATS)} (it has {names})"
        raise DataError(f"{where}, {what}: for texts without answers use minigpt data prepare --field")
    require_supported(row, where)
    if "messages" in row or "conversations" in row:
        found = row.get("messages") or row.get("conversations")
        messages = [*found] if isinstance(found, list) else []
    elif {"prompt", "completion"} <= row.keys():
        messages = [*make_messages(row["prompt"], "user"), *make_messages(row["completion"], "assistant")]
    else:
        messages = _convert_instruction(row, where)
    if row.get("history") not in _NOTHING and "instruction" not in row:
        raise _build_unsupported_error("history", where)
    if row.get("system") not in _NOTHING:
        messages = [{"role": "system", "content": row["system"]}, *messages]
    return messages


def make_messages(content: Any, role: str) -> list[Any]:
    """Return text as a message of that role, and messages as they are."""
    return content if isinstance(content, list) else [{"role": role, "content": content}]


def parse_message(message: Any, where: str) -> Turn:
    """Return the turn that a message holds. Raise DataError for a role, a content or a field that is not supported."""
    fields = message if isinstance(message, dict) else {}
    role, text = fields.get("role", fields.get("from")), fields.get("content", fields.get("value"))
    role = _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else None
    text = _join_parts(text, where) if isinstance(text, list) else text
    if role not in ROLE_TOKENS or not isinstance(text, str):
        known = ", ".join(ROLE_TOKENS)
        raise DataError(f"{where}: a message needs a role ({known}) and a content that is text, not {message!r:.60}")
    for name in _UNSUPPORTED_IN_MESSAGE:
        if fields.get(name) not in _NOTHING:
            raise _build_unsupported_error(name, where)
    weight = fields.get("weight")
    if weight is not None and (weight not in (0, 1) or (role != "assistant" and weight)):
        raise DataError(
            f"{where}: the weight of a message of the {role} is {weight!r:.20}, and can only be 0 or, of an answer, 1"
        )
    return Turn(role, text, is_learned=role != "assistant" or weight != 0)


def require_supported(row: dict[str, Any], where: str, also: tuple[str, ...] = ()) -> None:
    """Raise DataError for a field of a row that changes what the row means and that nothing here can express.

    Args:
        row: the row.
        where: its place, for the message.
        also: names of more fields that its format does not support.
    """
    for name in (*_UNSUPPORTED, *also):
        if row.get(name) not in _NOTHING and not (name == "weight" and row[name] == 1):
            raise _build_unsupported_error(name, where)


def _convert_instruction(row: dict[str, Any], where: str) -> list[Any]:
    """Return the messages of a row in Alpaca's format."""
    parts = [row["instruction"], row.get("input") or "", row["output"]]
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"{where}: instruction, input and output must be text")
    instruction, extra, answer = parts
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise DataError(f"{where}: history must be a list of pairs, each of a question and its answer")
    earlier = [message for said, heard in history for message in _make_exchange(said, heard)]
    return [*earlier, *_make_exchange(f"{instruction}\n{extra}" if extra else instruction, answer)]


def _make_exchange(question: Any, answer: Any) -> list[Any]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _join_parts(parts: list[Any], where: str) -> str:
    """Return the text of a content in parts. Raise DataError for a part that is not text, such as an image."""
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise DataError(f"{where}: a part of a content is {kind!r:.40}, and only text can be learned: leave it out")
    return "".join(part["text"] for part in parts)


def _build_unsupported_error(name: str, where: str) -> DataError:
    return DataError(f"{where}: the field {name!r} changes what the example means, and is not supported: leave it out")

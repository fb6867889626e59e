"""Dataclasses as JSON files. A file may be untrusted: each value is checked against its field's type."""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

from minigpt.config_fields import MAX_NUMBERS, format_value, get_choices, get_value_type
from minigpt.errors import ExchangeError, FileError, RunError
from minigpt.system.files import read_text

MAX_JSON_BYTES = 16 * 2**20  # bytes; as Python objects it can take thirty times as much memory
T = TypeVar("T")


def read_run_file(path: Path) -> str:
    """Read a text file of a run. Raise RunError if it is missing, unreadable or not text."""
    try:
        return read_text(path, MAX_JSON_BYTES)
    except FileError as error:
        raise RunError(str(error)) from None


def parse_json(text: str, where: str) -> Any:
    """Parse JSON.

    Args:
        text: the JSON.
        where: its file, and perhaps the line, for messages.

    Raises:
        RunError: the text is not JSON. NaN and Infinity are not JSON either, although Python's parser accepts them.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where} is damaged: not JSON ({error})") from None


def read_foreign_json(path: Path, max_bytes: int) -> Any:
    """Read a JSON file of another program.

    Args:
        path: the file.
        max_bytes: the largest size of the file.

    Raises:
        ExchangeError: the file is not JSON.
        FileError: the file cannot be read.
    """
    try:
        return json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{str(path)!r} is damaged: not JSON ({error})") from None


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def format_json_lines(entries: Sequence[Any]) -> bytes:
    """Return dataclasses as JSON, one in a line."""
    return "".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in entries).encode()


def read_dataclass_lines(path: Path, cls: type[T]) -> list[T]:
    """Read a file that `format_json_lines` made.

    Args:
        path: the file, with at least one line.
        cls: the dataclass.

    Raises:
        RunError: the file is missing, or a line is anything else.
    """
    text = read_run_file(path)
    if not text.endswith("\n"):
        raise RunError(f"{str(path)!r} is cut short: its last line does not end")
    places = ((line, f"{str(path)!r}, line {n}") for n, line in enumerate(io.StringIO(text), 1))
    return [parse_dataclass(cls, parse_json(line, where), where) for line, where in places]


def parse_dataclass(cls: type[T], content: Any, where: str) -> T:
    """Convert a JSON object to a dataclass.

    Args:
        cls: the dataclass.
        content: the object, which must have exactly its fields.
        where: its file, for messages.

    Raises:
        RunError: a field is missing, unknown, or of another type than the dataclass says.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(content, dict) or content.keys() != fields.keys():
        raise RunError(f"{where} is damaged or from another version: it needs exactly {', '.join(fields)}")
    for name, f in fields.items():
        if not _is_valid(f, content[name]):
            raise RunError(f"{where} is damaged: {name} cannot be {format_value(content[name])}")
    return cls(**content)


def _is_valid(f: dataclasses.Field, value: Any) -> bool:
    """Return True if a value read from JSON has the type of a field."""
    if value is None and f.default is None:
        return True
    choices = get_choices(f)
    if get_origin(get_value_type(f)) is list:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    kind = str if choices else get_value_type(f)
    accepted: tuple[Any, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):  # Python's bool is an int
        return False
    if kind in MAX_NUMBERS and not abs(value) <= MAX_NUMBERS[kind]:  # 1e999 is infinite
        return False
    return not choices or value in choices

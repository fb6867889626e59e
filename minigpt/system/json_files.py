"""Dataclasses as JSON on disk, and back: what is read may be a stranger's, and is held to the fields' types."""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from minigpt.config_fields import LARGEST, format_value, get_choices, get_value_type
from minigpt.errors import FileError, RunError
from minigpt.system.files import read_text

LARGEST_JSON = 16 * 2**20  # bytes, of which Python may make thirty times as many
T = TypeVar("T")


def read_run_file(path: Path) -> str:
    """A file of a run as text; RunError if it is missing, unreadable or not text."""
    try:
        return read_text(path, LARGEST_JSON)
    except FileError as error:
        raise RunError(str(error)) from None


def parse_json(text: str, where: str) -> Any:
    """JSON as Python data; RunError if it isn't JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where} is damaged: not JSON ({error})") from None


def format_json_lines(entries: Sequence[Any]) -> bytes:
    """Dataclasses as JSON, a line each."""
    return "".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in entries).encode()


def read_json_lines(path: Path, cls: type[T]) -> list[T]:
    """The dataclasses that `format_json_lines` wrote to a file, at least one; RunError if it holds anything else."""
    text = read_run_file(path)
    if not text.endswith("\n"):
        raise RunError(f"{str(path)!r} is cut short: its last line does not end")
    places = ((line, f"{str(path)!r}, line {n}") for n, line in enumerate(io.StringIO(text), 1))
    return [parse_dataclass(cls, parse_json(line, where), where) for line, where in places]


def _refuse_constant(constant: str) -> None:
    """Raise ValueError: NaN and Infinity are Python's additions to JSON."""
    raise ValueError(f"{constant} is not a number")


def parse_dataclass(cls: type[T], content: Any, where: str) -> T:
    """The dataclass made of a JSON object with exactly its fields, each of its type; RunError for any other."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(content, dict) or content.keys() != fields.keys():
        raise RunError(f"{where} is damaged or from another version: it needs exactly {', '.join(fields)}")
    for name, f in fields.items():
        value, choices = content[name], get_choices(f)
        kind = str if choices else get_value_type(f)
        accepted = (int, float) if kind is float else (kind,)
        fits = isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)  # Python's bool is an int
        fits = fits and (not choices or value in choices)
        fits = fits and not (kind in LARGEST and not abs(value) <= LARGEST[kind])  # 1e999 is infinite
        if not fits and not (value is None and f.default is None):
            raise RunError(f"{where} is damaged: {name} cannot be {format_value(value)}")
    return cls(**content)

"""Rows of JSON, such as examples: JSON lines, or one array, each also compressed by gzip or Zstandard."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from minigpt.data.decompression import COMPRESSIONS, open_decompressed
from minigpt.errors import DataError, FileError
from minigpt.system.files import explain_os_errors

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
MAX_LINE_BYTES = 2**24
MAX_ARRAY_BYTES = 2**25  # bytes; as Python objects it can take thirty times as much memory
_FIRST_BYTES = 2**16  # the first row must end within them
_BLANK = re.compile(r"[\ufeff \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")


def iterate_json_rows(path: str | Path, kind: str) -> Iterator[tuple[str, Any]]:
    """Read the lines of a JSON Lines file, or the elements of a file that is one array.

    Args:
        path: the file.
        kind: what a row is called in messages, in the plural.

    Yields:
        The place of a row, for messages, and its content.

    Raises:
        DataError: a row is not JSON in UTF-8.
        FileError: the file cannot be read or is empty.
    """
    path = Path(path)
    is_empty = True
    with explain_os_errors("read", path), open_decompressed(path) as (file, _, _):
        for row in read_rows(file, path):
            is_empty = False
            yield row
    if is_empty:
        raise FileError(f"{str(path)!r} has no {kind}: a line of JSON each")


def read_rows(file: IO[bytes], path: Path) -> Iterator[tuple[str, Any]]:
    """Read the rows of an open file, as `iterate_json_rows` does."""
    return (_read_array if _is_array(file) else _read_lines)(file, path)


def read_first_row(path: str | Path) -> Any:
    """Return the first row of a file of JSON lines or an array; None if the file does not begin with such a row."""
    path = Path(path)
    if not path.is_file():
        return None
    with explain_os_errors("read", path), open_decompressed(path) as (file, _, _):
        text = file.read(_FIRST_BYTES).decode("utf-8", "replace")
    start = _BLANK.match(text).end()  # type: ignore[union-attr]
    if text[start : start + 1] == "[":
        start = _BLANK.match(text, start + 1).end()  # type: ignore[union-attr]
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def get_suffix(path: str | Path) -> str:
    """Return the ending of a file's name in lower case, without that of a compression."""
    path = Path(path)
    return (Path(path.stem) if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def read_numbered_lines(file: IO[bytes], path: Path, longest: int, way_out: str) -> Iterator[tuple[int, str, bytes]]:
    """Read the lines of a file that are not blank.

    Args:
        file: the open file.
        path: its path, for messages.
        longest: the largest length of a line, in bytes.
        way_out: what the user can do about a longer line.

    Yields:
        The line's number, its place for messages, and its bytes.

    Raises:
        DataError: a line is longer.
    """
    name = repr(str(path))
    for number, line in enumerate(iter(lambda: file.readline(longest + 1), b""), 1):
        where = f"{name}, line {number:,}"
        if len(line) > longest:
            raise DataError(f"{where}, is longer than {longest:,} bytes: {way_out}")
        if not line.isspace():
            yield number, where, line


def _is_array(file: IO[bytes]) -> bool:
    """Return True if a file begins with a bracket; nothing is taken from it."""
    start = file.peek(1)  # type: ignore[attr-defined]
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _read_lines(file: IO[bytes], path: Path) -> Iterator[tuple[str, Any]]:
    for _, where, line in read_numbered_lines(file, path, MAX_LINE_BYTES, "no example is"):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
            raise DataError(f"{where}, is not JSON in UTF-8 ({error}): correct it or leave it out") from None
        yield where, content


def _read_array(file: IO[bytes], path: Path) -> Iterator[tuple[str, Any]]:
    content = file.read(MAX_ARRAY_BYTES + 1)
    if len(content) > MAX_ARRAY_BYTES:
        raise DataError(f"{str(path)!r} is an array of more than {MAX_ARRAY_BYTES:,} bytes: write a row in each line")
    decoder, where = json.JSONDecoder(), f"{str(path)!r}, row 1"
    try:
        text = content.decode()
        place = _BLANK.match(text, text.index("[") + 1).end()  # type: ignore[union-attr]
        number = 0
        while text[place] != "]" or number:
            number += 1
            where = f"{str(path)!r}, row {number:,}"
            row, place = decoder.raw_decode(text, place)
            yield where, row
            comma = _COMMA.match(text, place)
            if comma is None:
                break
            place = comma.end()
        rest = text[place:].split()
        if rest[0] != "]" or rest[1:]:
            raise ValueError("the array does not end after it")
    except (ValueError, IndexError, RecursionError) as error:
        raise DataError(f"{where}, is not JSON in UTF-8 ({error}): correct it or leave it out") from None

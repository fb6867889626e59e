"""From bytes to text: UTF-8, without a byte order mark, and what to say of other encodings."""

import codecs
from contextlib import suppress
from pathlib import Path
from typing import Any

from minigpt.errors import DataError, FileError
from minigpt.system.warn_once import warn_once

BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
MAX_NAME = 255  # characters of a file's name that could be taken for a text


def drop_byte_order_mark(text: str, name: str) -> str:
    """Return a text without the byte order mark that some programs write before it, and warn if there is one."""
    if text.startswith(BYTE_ORDER_MARK):
        warn_once(f"{name} begins with a byte order mark (U+FEFF), which is left out")
    return text.removeprefix(BYTE_ORDER_MARK)


def decode_text(content: bytes, name: str) -> str:
    """Decode UTF-8.

    Args:
        content: the bytes.
        name: where they are from, for messages.

    Raises:
        FileError: the bytes are not UTF-8, or have a zero byte, as binary files do.
    """
    require_no_utf16(content, name)
    zero = content.find(0)
    if zero >= 0:
        raise FileError(f"{name} is binary, not text: byte {zero:,} is zero; use a text file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start:,} is 0x{content[error.start]:02x}"
        raise FileError(f"{name} is not UTF-8: {byte}; save it as UTF-8 first") from None


def require_no_utf16(start: bytes, name: str, way_out: str = "save it as UTF-8 first") -> None:
    """Raise FileError if bytes are the start of a text in UTF-16: it has a mark, or every second byte is zero.

    Args:
        start: the first bytes of a file.
        name: the file, for the message.
        way_out: what the user can do, for the message.
    """
    start = start[:1000]
    halves = (start[::2], start[1::2])
    has_zeros = any(2 * half.count(0) > len(half) > 1 for half in halves) and not all(0 in half for half in halves)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or has_zeros:
        raise FileError(f"{name} is UTF-16, not UTF-8: {way_out}")


def require_text(text: Any, advice: str) -> None:
    """Raise DataError for a path, and for the name of an existing file: the caller probably meant its content.

    Args:
        text: the text.
        advice: the way out. "{name}" in it stands for the file's name.
    """
    is_name = isinstance(text, Path)
    if isinstance(text, str) and 0 < len(text) <= MAX_NAME and "\n" not in text:
        with suppress(OSError, ValueError):
            is_name = Path(text).is_file()
    if is_name:
        name = repr(str(text))
        raise DataError(f"{name} is the name of a file, not a text: {advice.format(name=name)}")
    if not isinstance(text, str):
        raise DataError(f"a text must be a str, not a {type(text).__name__}")

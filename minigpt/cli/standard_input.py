"""Standard input as UTF-8 text: whole, or line by line."""

import codecs
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from minigpt.cli.output import print_message
from minigpt.errors import FileError
from minigpt.system.files import explain_os_errors
from minigpt.system.text_encoding import decode_text

NAME = "standard input"
MAX_LINE = 2**20  # bytes
BYTE_ORDER_MARK = codecs.BOM_UTF8


def get_standard_input() -> BinaryIO:
    """Return standard input as a binary file. Raise FileError if the caller closed it."""
    if sys.stdin is None:
        raise FileError(f"{NAME} is closed: type the text in a terminal, or send it through a pipe or from a file")
    return sys.stdin.buffer


def read_standard_input(limit: int) -> str:
    """Return the text of standard input, with its line ends unchanged and without a byte order mark.

    Args:
        limit: the largest size in bytes.

    Raises:
        FileError: standard input is closed, cannot be read, is larger, or is not UTF-8.
    """
    file = get_standard_input()
    with explain_os_errors("read", NAME):
        content = file.read(limit + 1)
    if len(content) > limit:
        raise FileError(f"{NAME} is larger than {limit:,} bytes, the limit of this command: use a part of it")
    return decode_text(_drop_byte_order_mark(content), NAME)


def iterate_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of standard input as they come, for `decode_line`. A terminal shows a prompt before each.

    Args:
        file: standard input.

    Raises:
        FileError: standard input cannot be read.
    """
    is_first = True
    while True:
        if file.isatty():
            click.echo("> ", nl=False, err=True)
        with explain_os_errors("read", NAME):
            line = piece = file.readline(MAX_LINE + 1)
            while len(piece) > MAX_LINE and not piece.endswith(b"\n"):  # `decode_line` refuses it: skip the rest
                piece = file.readline(MAX_LINE + 1)
        if not line:
            return
        yield _drop_byte_order_mark(line) if is_first else line
        is_first = False


def decode_line(line: bytes) -> str:
    """Return the text of a line without its line end. Raise FileError if it is too long or not UTF-8."""
    line = line.rstrip(b"\r\n")
    if len(line) > MAX_LINE:
        raise FileError(f"the line is longer than {MAX_LINE:,} bytes, the limit: shorten it")
    return decode_text(line, "the line")


def _drop_byte_order_mark(content: bytes) -> bytes:
    """Return a text without the byte order mark that some editors and shells put before it, and say so."""
    if content.startswith(BYTE_ORDER_MARK):
        print_message(f"{NAME} begins with a byte order mark (U+FEFF), which is left out")
    return content.removeprefix(BYTE_ORDER_MARK)

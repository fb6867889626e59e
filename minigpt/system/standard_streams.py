"""Standard input, output and error, which the caller may have closed, and which may not be a terminal."""

import io
import os
import select
import sys
from typing import TextIO


def prepare_output_streams() -> None:
    """Open standard output and error if the caller closed them, and let them print every character.

    A stream whose encoding lacks a character, as on a terminal of Windows, gets the number of the character.
    """
    sys.stdout = sys.stdout or _open_nothing()
    sys.stderr = sys.stderr or _open_nothing()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open_nothing() -> TextIO:
    """Return a stream that discards what is written to it."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def can_read_within(stream: TextIO, seconds: float) -> bool:
    """Return True if a pipe has something to read, or ends, within that time.

    Windows cannot wait for a pipe. There the answer is False.
    """
    try:
        return bool(select.select([stream], [], [], seconds)[0])
    except OSError:  # Windows: it is not a socket
        return False

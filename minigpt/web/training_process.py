"""A training in a process of its own: start it, see whether it lives, and read how it failed.

The process writes what it prints into a log, and holds the lock of that file as long as it lives. It goes on when the
server ends, and a new server finds it by the lock.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from minigpt.system.detached_process import start_detached
from minigpt.system.files import create_folder, explain_os_errors
from minigpt.system.process_file import is_locked, try_lock
from minigpt.web.api_errors import ApiError

TAIL_BYTES = 16_384  # of a log: the part that is read
ERROR = "minigpt: "  # before each message of the program
STOPPED = "stopped"  # what the program says at the end of a training that a signal stopped


def format_command(arguments: Sequence[str]) -> str:
    """Return a command as a reader could type it."""
    return shlex.join(["minigpt", *arguments])


def build_command(arguments: Sequence[str]) -> list[str]:
    """Return the words that start this program with arguments."""
    return [sys.executable, "-m", "minigpt", *arguments]


def start_process(arguments: Sequence[str], log: Path, append: bool) -> "subprocess.Popen[bytes]":
    """Start the program in a session of its own, so that no signal to the server reaches it.

    Args:
        arguments: the command and its flags.
        log: the file that gets the output. Its first line is the command.
        append: whether to keep what the log has; else it begins anew.

    Raises:
        ApiError: a process with this log lives.
        FileError: the log cannot be written.
    """
    create_folder(log.parent)
    with explain_os_errors("write", log), log.open("ab") as file:
        if is_locked(file) or not try_lock(file):
            raise ApiError(409, f"a process already writes {str(log)!r}: wait for its end", "name", "conflict")
        if not append:
            file.truncate(0)
        file.write(f"$ {format_command(arguments)}\n".encode())
        file.flush()
        return start_detached(build_command(arguments), file)


def is_alive(log: Path) -> bool:
    """Return True if the process that writes a log lives."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        return is_locked(file)
    return False


def read_tail(log: Path) -> str:
    """Return the end of a log, beginning with a whole line; an empty text if there is no log."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        start = max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES)
        file.seek(start)
        text = file.read().decode(errors="replace")
        return text.partition("\n")[2] if start else text
    return ""


def find_error(output: str) -> str | None:
    """Return the sentence with which the program ended, if it ended with an error."""
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    sentence = last.removeprefix(ERROR)
    return None if sentence in (last, STOPPED) else sentence

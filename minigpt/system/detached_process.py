"""Processes that outlive the one that starts them."""

import subprocess
from collections.abc import Sequence
from typing import IO

_WINDOWS_FLAGS = ("CREATE_NEW_PROCESS_GROUP", "DETACHED_PROCESS")


def start_detached(command: Sequence[str], output: IO) -> subprocess.Popen:
    """Start a process that no Ctrl-C in this terminal reaches.

    On Linux and macOS it gets a session of its own, on Windows a group of processes without a console.

    Args:
        command: the program and its arguments.
        output: the open file that gets its standard output and error.
    """
    flags = sum(getattr(subprocess, name, 0) for name in _WINDOWS_FLAGS)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Windows ignores it
        creationflags=flags,
    )

"""The command in a process that forks from one in which all is imported: it does the same, and starts at once.

The tests that ask how the installed program itself starts, ends or is interrupted start that one: conftest.COMMAND.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fault_injection import PROCESSES

from minigpt.__main__ import main

SLOW = 120.0  # seconds


def command(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], given: bytes | None = None
) -> subprocess.CompletedProcess:
    """Run `minigpt` with these arguments, there, with that on standard input, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("in", "out", "err")]
        for path in streams:
            path.write_bytes((given or b"") if path.name == "in" else b"")
        if given is None:
            streams[0] = Path(os.devnull)
        process = PROCESSES.Process(target=called, args=(arguments, cwd, dict(environment), streams))
        process.start()
        process.join(SLOW)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), SLOW)
        out, err = (path.read_text(encoding="utf-8") for path in streams[1:])
        return subprocess.CompletedProcess(["minigpt", *arguments], process.exitcode, out, err)


def called(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], streams: Sequence[Path]) -> None:
    """What the process does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND if number else os.O_RDONLY), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
    sys.argv = ["minigpt", *arguments]
    main()

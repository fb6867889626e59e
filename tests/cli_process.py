"""Run the command line in a process forked from one that has imported everything: it starts at once.

Tests of how the installed program starts, ends or is interrupted use conftest.COMMAND instead.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fault_injection import PROCESSES

from minigpt.__main__ import main

TIMEOUT = 120.0  # seconds


def run_command(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], given: bytes | None = None
) -> subprocess.CompletedProcess:
    """Run `minigpt` with these arguments in the folder `cwd`, with `given` on standard input, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("in", "out", "err")]
        for path in streams:
            path.write_bytes((given or b"") if path.name == "in" else b"")
        if given is None:
            streams[0] = Path(os.devnull)
        process = PROCESSES.Process(target=_run_main, args=(arguments, cwd, dict(environment), streams))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), TIMEOUT)
        out, err = (path.read_text(encoding="utf-8") for path in streams[1:])
        return subprocess.CompletedProcess(["minigpt", *arguments], process.exitcode, out, err)


def _run_main(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], streams: Sequence[Path]) -> None:
    """Set the process up as a new program would be, and run the command line."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND if number else os.O_RDONLY), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
    sys.argv = ["minigpt", *arguments]
    main()

"""Run the command line in a process forked from one that has imported everything: it starts at once.

Tests of how the installed program starts or ends use conftest.COMMAND instead.
"""

import contextlib
import ctypes
import gc
import os
import pty
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import torch.distributed as dist
from fault_injection import PROCESSES

from minigpt.__main__ import main

COMMAND = Path(sys.executable).with_name("minigpt")
TIMEOUT = 120.0  # seconds
Stream = int | IO | None  # as for subprocess.Popen: PIPE, STDOUT, DEVNULL, a descriptor or a file


class CommandProcess:
    """`minigpt` in a forked process, with those methods of subprocess.Popen that the tests use."""

    def __init__(
        self,
        arguments: Sequence[object],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        """Start it in the folder `cwd`. The process first calls `prepare`, a function of a module that is no test."""
        self.arguments = [*map(str, arguments)]
        given, self.stdin = _open_stream(stdin, "w")
        out, self.stdout = _open_stream(stdout, "r")
        err, self.stderr = (out, None) if stderr == subprocess.STDOUT else _open_stream(stderr, "r")
        variables = dict(os.environ if environment is None else environment)
        self.process = PROCESSES.Process(
            target=_run_main, args=(self.arguments, cwd, variables, (given, out, err), prepare)
        )
        self.process.start()
        for connection in {given, out, err}:
            connection.close()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end of the process; its exit status."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout)
        return self.process.exitcode

    def communicate(self, given: str = "", timeout: float = TIMEOUT) -> tuple[str, str]:
        """Write `given` to standard input, and return the rest of standard output and error, after the end."""
        read: dict[str, str] = {}

        def read_rest(name: str, stream: IO[str] | None) -> None:
            read[name] = stream.read() if stream and not stream.closed else ""

        threads = [
            threading.Thread(target=read_rest, args=stream, daemon=True)
            for stream in (("out", self.stdout), ("err", self.stderr))
        ]
        for thread in threads:
            thread.start()
        if self.stdin:
            self.stdin.write(given)
            self.stdin.close()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        for thread in threads:
            thread.join()
        return read["out"], read["err"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()


def _open_stream(stream: Stream, mode: str) -> tuple[Connection, IO[str] | None]:
    """Return the process's end of a standard stream, and ours if the stream is a pipe; `mode` is that of ours."""
    if stream == subprocess.PIPE:
        ends = os.pipe()
        ours, theirs = ends if mode == "r" else ends[::-1]
        return Connection(theirs), os.fdopen(ours, mode, encoding="utf-8")
    if stream == subprocess.DEVNULL:
        return Connection(os.open(os.devnull, os.O_RDWR)), None
    assert stream is not None
    return Connection(os.dup(stream if isinstance(stream, int) else stream.fileno())), None


def run_command(
    arguments: Sequence[object],
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    given: bytes | None = None,
    prepare: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess:
    """Run `minigpt` with these arguments in the folder `cwd`, with `given` on standard input, or nothing."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(given or b"")
        stdin.seek(0)
        streams = {"stdin": stdin if given is not None else subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
        process = CommandProcess(arguments, cwd, environment, prepare=prepare, **streams)
        try:
            status = process.wait()
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for file in (stdout, stderr):
            file.seek(0)
        out, err = (file.read().decode() for file in (stdout, stderr))
        return subprocess.CompletedProcess(["minigpt", *process.arguments], status, out, err)


def in_terminal(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Run `minigpt` in a terminal of 100 columns; return its exit status and what the terminal shows."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = CommandProcess(arguments, cwd, environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # on Linux: the other end is closed
            break
        if not piece:  # the same on macOS
            break
        shown += piece
    os.close(ours)
    return process.wait(), shown.decode()


@contextlib.contextmanager
def serve_torchrun(count: int) -> Iterator[list[dict[str, str]]]:
    """Do what torchrun does for `count` processes; yield the environment variables that it gives to each of them."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    yield [shared | sizes | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def run_code(code: str) -> None:
    """Run Python code in a process that has imported everything but computed nothing yet; it must not fail."""
    process = PROCESSES.Process(target=exec, args=(code, {}))
    process.start()
    process.join()
    assert process.exitcode == 0, "the code failed"


def close_streams(*names: str) -> None:
    """Leave this process without these streams of `sys`, as a shell's `<&-`, `>&-` and `2>&-` do with a new process."""
    for name in names:
        getattr(sys, name).close()
        setattr(sys, name, None)


def hide_module(name: str) -> None:
    """Let the import of a module fail in this process."""
    sys.modules[name] = None  # type: ignore[assignment]


def obey_file_modes() -> None:
    """Let the modes of files bind this process, also if it belongs to root: on Linux it drops its capabilities.

    The user stays the same, since another one could not import modules from a Python that is installed in root's home.
    """
    if os.getuid() == 0:
        header = struct.pack("Ii", 0x20080522, 0)  # capset(2): _LINUX_CAPABILITY_VERSION_3, this process
        status = ctypes.CDLL(None, use_errno=True).capset(header, bytes(24))
        assert status == 0, os.strerror(ctypes.get_errno())


def _run_main(
    arguments: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    streams: Sequence[Connection],
    prepare: Callable[[], object] | None,
) -> None:
    """Set the process up as a new program would be, and run the command line."""
    gc.freeze()  # what the server has imported is no garbage: a collection need not look at it, nor copy its pages
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    for stream in set(streams):
        stream.close()
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    sys.argv = [str(COMMAND), *arguments]
    if prepare:
        prepare()
    main()

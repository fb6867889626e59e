"""A process that imports PyTorch and the exercises once, and checks in copies of itself.

A report on a class of workbooks would otherwise wait for the import of PyTorch in every folder. The server reads jobs
from its standard input, a line of JSON each, and forks for every job: whatever the learner's code does, the next job
has a fresh copy.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType

from minigpt.learn.catalog import get_entry, load_exercise
from minigpt.learn.check_process import check_exercises
from minigpt.system.files import write_atomic


@dataclasses.dataclass(frozen=True)
class Job:
    """One call of `check_exercises`.

    Attributes:
        arguments: its arguments.
        current: the current folder of the learner's code.
        status: the file to which the server writes the exit status.
    """

    arguments: list[str]
    current: str
    status: str


class CheckServer:
    """Starts processes that check workbooks, with PyTorch already in them. Use it as a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "CheckServer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process:
            _end(self._process)

    def start(self, job: Job) -> "RunningJob":
        """Start a job."""
        if self._process and self._process.poll() is not None:
            _end(self._process)
            self._process = None
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},  # a copy must not wait for threads that only its parent has
                start_new_session=True,  # so that it can be ended together with its copies
                text=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
        self._process.stdin.flush()
        return RunningJob(self._process, Path(job.status))


class RunningJob:
    """A job of the server, used like a subprocess.Popen."""

    def __init__(self, server: subprocess.Popen, status: Path) -> None:
        self.returncode: int | None = None
        self._server = server
        self._status = status

    def poll(self) -> int | None:
        """Return the exit status, or None while the job runs."""
        if self.returncode is None:
            self.returncode = int(self._status.read_text()) if self._status.exists() else self._server.poll()
        return self.returncode

    def kill(self) -> None:
        """End the job if it runs, and the server with it."""
        if self.poll() is None:
            _end(self._server)


def _end(server: subprocess.Popen) -> None:
    """End the server and its copies, if they still run."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    assert server.stdin is not None
    server.stdin.close()


def serve() -> None:
    """Run the jobs, one after another.

    The copies compute the expected results: after a backward pass in the server, PyTorch with CUDA would refuse those
    of the copies.
    """
    for line in sys.stdin:
        job = Job(**json.loads(line))
        for number in job.arguments[4:]:
            load_exercise(get_entry(int(number)))
        child = os.fork()
        if child == 0:
            _run(job)
        _, status = os.waitpid(child, 0)
        write_atomic(Path(job.status), str(os.waitstatus_to_exitcode(status)).encode())


def _run(job: Job) -> None:
    """Run a job, and end this process."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the learner's input() must not read the next job
        os.chdir(job.current)
        check_exercises(job.arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()

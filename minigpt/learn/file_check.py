"""Check the learner's files, in a process of their own."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from minigpt.errors import WorkError
from minigpt.learn.catalog import Entry
from minigpt.learn.check_process import TIME_LIMIT, TIME_OVER
from minigpt.learn.check_server import CheckServer, Job, RunningJob
from minigpt.learn.judge import Verdict
from minigpt.learn.workbook import Workbook
from minigpt.system.fork_detector import CAN_FORK

RESULTS = "results.jsonl"
POLL_SECONDS = 0.05  # between two looks at the results
SILENCE_LIMIT = 600.0  # seconds without a verdict; the process's own limits end the learner's code much earlier


def check_files(
    workbook: Workbook,
    entries: Sequence[Entry],
    text_path: Path | None = None,
    seconds: float = TIME_LIMIT,
    server: CheckServer | None = None,
) -> Iterator[Verdict]:
    """Check exercises of a workbook. The workbook notes which pass.

    One process checks them, one after another. If the learner's code ends it, another checks the rest.

    Args:
        workbook: the folder.
        entries: the exercises.
        text_path: the text of a trial. Without it, trials are left out, and their exercises are not noted as done.
        seconds: the time limit of the learner's code, for each exercise.
        server: starts the process with PyTorch in it, for several workbooks. None starts a process of its own.

    Yields:
        The verdict on each exercise, as soon as it is known.

    Raises:
        FileError: an exercise has no file.
        WorkError: the process does not answer.
    """
    for entry in entries:
        workbook.compute_digest(entry)
    waiting = list(entries)
    while waiting:
        status = 0
        numbers = [str(entry.number) for entry in waiting]
        with (
            tempfile.TemporaryDirectory() as folder,
            _start(workbook, text_path, Path(folder), seconds, numbers, server) as process,
        ):
            for verdict in _follow(process, Path(folder) / RESULTS):
                last = waiting.pop(0)
                yield verdict
            status = process.returncode or 0
        if status == TIME_OVER:
            workbook.record_check(last, False, "")
        elif waiting:
            lost = waiting.pop(0)
            workbook.record_check(lost, False, "")
            yield _describe_lost_process(lost, status)


@contextlib.contextmanager
def _start(
    workbook: Workbook,
    text_path: Path | None,
    folder: Path,
    seconds: float,
    numbers: Sequence[str],
    server: CheckServer | None,
) -> Iterator[subprocess.Popen | RunningJob]:
    """Start the process that checks exercises, and end it with the block.

    Its current folder is an empty one, so that a file which the learner's code writes lies nowhere else.
    """
    (folder / RESULTS).touch()
    current = folder / "current"
    current.mkdir()
    text = str(text_path.resolve()) if text_path else ""
    arguments = [str(workbook.folder.resolve()), str(folder / RESULTS), text, str(seconds), *numbers]
    if server and CAN_FORK:
        job = server.start(Job(arguments, str(current), str(folder / "status")))
        try:
            yield job
        finally:
            job.kill()
        return
    words = [sys.executable, "-m", "minigpt.learn.check_process", *arguments]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=current)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _follow(process: subprocess.Popen | RunningJob, results: Path) -> Iterator[Verdict]:
    """Yield the verdicts that the process writes, until it ends. Raise WorkError if nothing comes for a long time."""
    last_news = time.monotonic()
    with results.open(encoding="utf-8") as file:
        unfinished = ""
        while True:
            has_ended = process.poll() is not None  # before reading: what was written until then is read
            unfinished += file.read()
            *lines, unfinished = unfinished.split("\n")
            for line in lines:
                yield Verdict(**json.loads(line))
                last_news = time.monotonic()
            if has_ended:
                return
            if time.monotonic() - last_news > SILENCE_LIMIT:
                raise WorkError(f"the check took more than {SILENCE_LIMIT:g} seconds, and was stopped")
            time.sleep(POLL_SECONDS)


def _describe_lost_process(entry: Entry, status: int) -> Verdict:
    """Return the verdict on a file whose process ended before the check did."""
    reason = f"with status {status}" if status >= 0 else f"by signal {-status}"
    message = f"{entry.file_name} ended the process of the check {reason}: does it call os._exit?"
    return Verdict(entry.number, False, message)

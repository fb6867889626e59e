"""The same job, started again: by torchrun's launcher when a process has died, by a queue when a machine was gone."""

import glob
import os
from contextlib import suppress
from pathlib import Path

from minigpt.errors import FileError, RunError
from minigpt.runs.run_directory import RunFolder, Status
from minigpt.training.checkpoint import Saves

LAUNCH, RESTARTS, NO_NAME = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "none"  # torchrun's


def this_launch() -> str | None:
    """The name of the job that this process is of, if torchrun started it."""
    return os.environ.get(LAUNCH)


def begun_before(wanted: RunFolder) -> tuple[Path, Status] | None:
    """The run of that name, or with a number, that this job has begun before, and how far that came.

    The last one, if there are several. A job that was given no name has one only as long as its launcher lives. A run
    that was never saved does not count.
    """
    launch, again = this_launch(), os.environ.get(RESTARTS, "0") != "0"
    if launch is None or (launch == NO_NAME and not again):
        return None
    found: list[tuple[str, Path, Status]] = []
    for path in [wanted.path, *wanted.path.parent.glob(f"{glob.escape(wanted.path.name)}-*")]:
        with suppress(RunError, FileError):
            record = RunFolder(path).read_record()
            if record.launch == launch and Saves(path).paths():
                found.append((record.started, path, record.status))
    return max(found)[1:] if found else None

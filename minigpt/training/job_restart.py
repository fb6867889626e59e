"""Find the run of a restarted job.

torchrun restarts a job after one of its processes died. A job queue restarts it after it gave the machine to another.
"""

import glob
import os
from contextlib import suppress
from pathlib import Path

from minigpt.errors import FileError, RunError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Status
from minigpt.training.checkpoint_directory import CheckpointDirectory

JOB_NAME, RESTART_COUNT, UNNAMED = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "none"  # set by torchrun


def get_job_name() -> str | None:
    """Return the name of the torchrun job of this process; None without torchrun."""
    return os.environ.get(JOB_NAME)


def find_restarted_run(target: RunDirectory) -> tuple[Path, Status] | None:
    """Return the run that this job started before a restart, with its status; None if there is none.

    Runs without a checkpoint are ignored. All jobs without a name share one name, so such a job is found only if
    torchrun reports a restart.

    Args:
        target: the path given by --out. The run may have a number added to it.
    """
    job, was_restarted = get_job_name(), os.environ.get(RESTART_COUNT, "0") != "0"
    if job is None or (job == UNNAMED and not was_restarted):
        return None
    found: list[tuple[str, Path, Status]] = []
    for path in [target.path, *target.path.parent.glob(f"{glob.escape(target.path.name)}-*")]:
        with suppress(RunError, FileError):
            info = RunDirectory(path).read_info()
            if info.launch == job and CheckpointDirectory(path).list_paths():
                found.append((info.started, path, info.status))
    return max(found)[1:] if found else None

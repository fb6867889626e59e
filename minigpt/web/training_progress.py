"""What the page shows of a training: its state, its losses and its samples, as far as they have come."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minigpt.errors import RunError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Metrics, RunInfo, Snapshot
from minigpt.system.json_files import read_dataclass_lines

State = Literal["starting", "running", "stopping", "finished", "interrupted", "diverged", "killed", "failed"]
ACTIVE = ("starting", "running", "stopping")
RESUMABLE = ("interrupted", "killed", "diverged", "finished")
FileVersion = tuple[int, int, int]  # inode, size, time of the last change


@dataclass(frozen=True)
class Training:
    """A training as the server finds it.

    Attributes:
        name: the run's name.
        state: what it does. A "stopping" training evaluates and saves. A "killed" one ended without that. A "failed"
            one ended before it had a run.
        info: what run.json says; None before there is one.
        error: the sentence with which it failed, or None.
    """

    name: str
    state: State
    info: RunInfo | None
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return what docs/web_api.md says of a training in the list."""
        started = None if self.info is None else self.info.started
        return {"name": self.name, "state": self.state, "started": started, "error": self.error}


def describe_progress(training: Training, directory: RunDirectory, after: int, after_sample: int) -> dict[str, Any]:
    """Return what docs/web_api.md says of one training.

    Args:
        training: the training.
        directory: its run's directory, which may not exist yet.
        after: only evaluations of later steps are returned.
        after_sample: only samples of later steps are returned.
    """
    progress: dict[str, Any] = {
        **training.to_dict(),
        **dict.fromkeys(("preset", "max_iters", "parameters", "text", "seconds_left", "validation_loss")),
        "bits_per_byte": None,
        "step": 0,
        "metrics": [],
        "snapshots": [],
        "has_weights": directory.model.exists(),
        "can_resume": can_resume(training, directory),
    }
    try:
        metrics, snapshots = _read_lines(directory.metrics, Metrics), _read_lines(directory.snapshots, Snapshot)
        config = None if training.info is None else directory.read_config()
    except RunError as error:
        return {**progress, "error": str(error)}
    progress |= {
        "step": max((each.step for each in (*metrics, *snapshots)), default=0),
        "metrics": [vars(each) for each in metrics if each.step > after],
        "snapshots": [vars(each) for each in snapshots if each.step > after_sample],
    }
    if config is not None and training.info is not None:
        most, is_running = config.training.max_iters, training.state == "running"
        progress |= {name: getattr(training.info, name) for name in ("parameters", "validation_loss", "bits_per_byte")}
        progress |= {"preset": config.preset, "max_iters": most, "text": training.info.data_source}
        progress["seconds_left"] = _estimate_seconds_left(metrics, most) if is_running else None
    return progress


def can_resume(training: Training, directory: RunDirectory) -> bool:
    """Return True for a run that `minigpt train` made and that has checkpoints."""
    is_trained_here = training.info is not None and training.info.base is None and not directory.finetuning.exists()
    return training.state in RESUMABLE and is_trained_here and directory.checkpoints.is_dir()


def _estimate_seconds_left(metrics: list[Metrics], max_iters: int) -> float | None:
    """Return the time of the steps that are left, without evaluations; None before the first steps."""
    if not metrics or not metrics[-1].step:
        return None
    return (max_iters - metrics[-1].step) * metrics[-1].seconds / metrics[-1].step


def _read_lines(path: Path, cls: type) -> list[Any]:
    """Return the lines of metrics.jsonl or snapshots.jsonl; an empty list before the first one."""
    try:
        status = path.stat()
    except OSError:
        return []
    return _parse_lines(path, cls, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=16)
def _parse_lines(path: Path, cls: type, version: FileVersion) -> list[Any]:
    """Read a file of lines, once for each version of it."""
    return read_dataclass_lines(path, cls)

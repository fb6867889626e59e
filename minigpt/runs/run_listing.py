"""All runs in a folder: what they are, how large they are, and removing what is not needed any more.

This module does not import PyTorch, so that a list of runs is printed at once.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.config import Config
from minigpt.errors import MinigptError, RunError
from minigpt.runs.run_info import RunInfo, read_run_info
from minigpt.system.files import explain_os_errors, lock_file
from minigpt.system.json_files import read_run_file
from minigpt.system.process_file import find_process

CONFIG, INFO, CHECKPOINTS = "config.toml", "run.json", "checkpoints"  # as in RunDirectory
LOCK, PROCESS = ".lock", ".process"
TRAINING = "training"  # the status of a run that a process trains


@dataclass(frozen=True)
class RunSummary:
    """One run in a list.

    Attributes:
        path: its directory.
        bytes: the size of its files; a file with two names counts once, and links are not followed.
        status: of `find_status`, or "broken" for a run that cannot be read.
        started: date and time of the start, ISO 8601, UTC.
        preset: the preset that its settings started from.
        bits_per_byte: exact loss on the validation split.
        error: why the run cannot be read.
    """

    path: Path
    bytes: int
    status: str
    started: str = ""
    preset: str = ""
    bits_per_byte: float | None = None
    error: str | None = None


SORT_KEYS: dict[str, Callable[[RunSummary], Any]] = {
    "date": lambda run: run.started,
    "name": lambda run: run.path.name,
    "preset": lambda run: run.preset,
    "loss": lambda run: (run.bits_per_byte is None, run.bits_per_byte),
    "size": lambda run: run.bytes,
    "status": lambda run: run.status,
}


def list_runs(folder: Path, sort: str = "date") -> list[RunSummary]:
    """Return the runs in a folder. A link to a run is not one of them.

    Args:
        folder: holds the runs' directories.
        sort: a key of SORT_KEYS. Of equal runs the earlier name comes first.

    Raises:
        FileError: the folder cannot be read.
    """
    with explain_os_errors("look for runs in", folder):
        paths = sorted(path for path in folder.iterdir() if is_run(path))
    return sorted((summarize_run(path) for path in paths), key=SORT_KEYS[sort])


def is_run(path: Path) -> bool:
    """Return True for a directory, not a link, that has a run's files."""
    return not path.is_symlink() and path.is_dir() and (path / CONFIG).is_file() and (path / INFO).is_file()


def summarize_run(path: Path) -> RunSummary:
    """Return what a list says of a run."""
    size = measure_size(path)
    try:
        info = read_run_info(path / INFO)
        preset = Config.from_toml(read_run_file(path / CONFIG)).preset
    except MinigptError as error:
        return RunSummary(path, size, "broken", error=str(error))
    return RunSummary(path, size, find_status(path, info), info.started, preset, info.bits_per_byte)


def find_status(path: Path, info: RunInfo) -> str:
    """Return "training" while a process trains a run, else the status of `RunInfo`."""
    return TRAINING if is_training(path) else info.status


def is_training(path: Path) -> bool:
    """Return True while a process trains a run."""
    return find_process(path / PROCESS) is not None


def measure_size(path: Path) -> int:
    """Return the bytes of all files below a directory. A file with several names counts once."""
    sizes = {}
    for folder, _, names in os.walk(path):
        for name in names:
            status = Path(folder, name).lstat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def prune_run(path: Path) -> int:
    """Delete the checkpoints of a finished run, without which it cannot be trained further.

    Returns:
        The number of bytes that are free now; 0 for a run that is not finished.

    Raises:
        RunError: a process is training the run.
        FileError: the checkpoints cannot be deleted.
    """
    if summarize_run(path).status != "finished" or (path / CHECKPOINTS).is_symlink():
        return 0
    before = measure_size(path)
    with _lock(path), explain_os_errors("delete the checkpoints of", path):
        if (path / CHECKPOINTS).is_dir():
            shutil.rmtree(path / CHECKPOINTS)
    return before - measure_size(path)


def delete_run(path: Path) -> None:
    """Delete a run's directory. What links in it lead to stays.

    Raises:
        RunError: it is no run, or a link to one, or a process is training it.
        FileError: it cannot be deleted.
    """
    require_run(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _lock(path), explain_os_errors("delete", path):
        path.rename(aside)  # first, so that a kill leaves no half of a run under its name
    with explain_os_errors("delete", path):
        shutil.rmtree(aside)


def require_run(path: Path) -> None:
    """Raise RunError for a path that is not a run's directory."""
    if path.is_symlink():
        raise RunError(f"{str(path)!r} is a link: name the run's own directory")
    if not is_run(path):
        raise RunError(f"{str(path)!r} is not a run: it has no {CONFIG} and {INFO}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes from training a run during the block. Raise RunError if one already does."""
    with lock_file(path / LOCK, f"a process is training {str(path)!r}: wait for it, or stop it", RunError):
        yield

"""A checkpoint: everything that a training run needs in order to resume with the same bits.

    checkpoints/00000500/model.safetensors      the weights after 500 steps
    checkpoints/00000500/training.safetensors   the optimizer's state and the state of every random generator
    checkpoints/00000500/best.safetensors       the weights of an earlier evaluation, if that one was better
    checkpoints/00000500/checkpoint.json        the marker: all else, and the size and SHA-256 of the other files
    checkpoints/00000500/shards/                instead of the first two, if several processes trained

A checkpoint exists only once its marker does. The other files are written and flushed first, then the marker is
renamed into place. training/checkpoint_directory.py writes them and keeps the newest two.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.errors import RunError
from minigpt.runs.run_info import FORMAT, Metrics, Snapshot
from minigpt.system.files import explain_os_errors
from minigpt.system.json_files import parse_dataclass, parse_json, read_run_file

MAX_NUMBER = 2**53  # steps, windows or seconds; more is damage
MAX_SKIPS, MAX_DIGITS = 8, 17  # batches that may be left out, and digits of a position
MODEL, TRAINING, BEST, MARKER = "model.safetensors", "training.safetensors", "best.safetensors", "checkpoint.json"
SHARDS = "shards"


@dataclass(frozen=True)
class CheckpointMetadata:
    """The numbers of a checkpoint.

    Attributes:
        step: training steps done.
        is_evaluated: True if the evaluation due at this step is done and in the metrics.
        position: training windows drawn.
        training_seconds: spent on steps.
        evaluation_seconds: spent on evaluations.
        skip_positions: the positions after batches that are left out, separated by blanks.
        is_published: True if these are also the weights of the run's model.safetensors: not between evaluations.
    """

    step: int
    is_evaluated: bool
    position: int
    training_seconds: float
    evaluation_seconds: float
    skip_positions: str
    is_published: bool

    def __post_init__(self) -> None:
        numbers = (self.step, self.position, *self.get_skip_positions(), self.training_seconds, self.evaluation_seconds)
        if not all(0 <= number < MAX_NUMBER for number in numbers):
            raise RunError(f"a checkpoint is damaged: {max(numbers, key=abs)} steps, windows or seconds are too many")

    def get_skip_positions(self) -> list[int]:
        """Return the skip positions as numbers. Raise RunError if they are none."""
        words = self.skip_positions.split()
        if len(words) > MAX_SKIPS or not all(word.isdecimal() and len(word) < MAX_DIGITS for word in words):
            raise RunError(f"a checkpoint is damaged: {self.skip_positions!r:.60} are no positions")
        return [int(word) for word in words]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose files are whole."""

    path: Path
    metadata: CheckpointMetadata
    metrics: list[Metrics]
    snapshots: list[Snapshot]
    is_sharded: bool = False

    @property
    def model(self) -> Path:
        """The file of the weights, or the directory of all shards."""
        return self.path / (SHARDS if self.is_sharded else MODEL)

    @property
    def training(self) -> Path:
        """The file of the optimizer and the generators, or the directory of all shards."""
        return self.path / (SHARDS if self.is_sharded else TRAINING)

    @property
    def best(self) -> Path | None:
        """The file of better weights, if an earlier evaluation had any."""
        path = self.path / BEST
        return path if path.exists() else None


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint, and compare each of its files with the size and SHA-256 in its marker.

    Args:
        path: its directory.

    Raises:
        RunError: something is missing or damaged; the message names the file.
    """
    where = f"{str(path / MARKER)!r}"
    content = parse_json(read_run_file(path / MARKER), where)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{where} is damaged or from another version")
    files = content.get("files")
    if not isinstance(files, dict) or files.keys() - {BEST} not in ({MODEL, TRAINING}, _list_shards(path)):
        raise RunError(f"{where} is damaged: it lists other files than a checkpoint has")
    for name, description in files.items():
        _require_whole(path / name, description)
    if (path / BEST).exists() != (BEST in files):
        raise RunError(f"{where} is damaged: it does not list {BEST}")
    lists: dict[str, list[Any]] = {}
    for name, kind in (("metrics", Metrics), ("snapshots", Snapshot)):
        entries = content.get(name)
        if not isinstance(entries, list):
            raise RunError(f"{where} is damaged: its {name} are not a list")
        lists[name] = [parse_dataclass(kind, entry, f"{where}, {name}") for entry in entries]
    metadata = parse_dataclass(CheckpointMetadata, content.get("metadata"), f"{where}, metadata")
    if f"{metadata.step:08}" != path.name:
        raise RunError(f"{where} is damaged: it is not of step {path.name}")
    return Checkpoint(path, metadata, lists["metrics"], lists["snapshots"], is_sharded=MODEL not in files)


def _list_shards(path: Path) -> set[str]:
    """Return the names of a checkpoint's shards in its marker; a name that no file has if there are none."""
    with explain_os_errors("look into", path):
        shards = (path / SHARDS).glob("*.safetensors") if (path / SHARDS).is_dir() else []
        return {f"{SHARDS}/{shard.name}" for shard in shards} or {""}


def describe_content(content: bytes) -> dict[str, int | str]:
    """Return the size and SHA-256 of a file's content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def describe_file(path: Path) -> dict[str, int | str]:
    """Return the size and SHA-256 of a file, which may be larger than memory."""
    with explain_os_errors("read", path), path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _require_whole(path: Path, description: Any) -> None:
    """Raise RunError unless the file has that size and SHA-256."""
    if not isinstance(description, dict) or not path.is_file():
        raise RunError(f"{str(path)!r} is missing")
    with explain_os_errors("read", path):
        if path.stat().st_size != description.get("bytes"):
            raise RunError(f"{str(path)!r} is damaged: its size has changed")
    if describe_file(path) != description:
        raise RunError(f"{str(path)!r} is damaged: its content has changed")

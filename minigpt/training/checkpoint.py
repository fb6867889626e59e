"""Checkpoints: everything that a training needs in order to resume with the same bits.

    checkpoints/00000500/model.safetensors      the weights after 500 steps
    checkpoints/00000500/training.safetensors   the optimizer's state and the state of every random generator
    checkpoints/00000500/best.safetensors       the weights of an earlier evaluation, if that one was better
    checkpoints/00000500/checkpoint.json        the marker: all else, and the size and SHA-256 of the other files
    checkpoints/00000500/shards/                instead of the first two, if several processes trained

A checkpoint exists only once its marker does. The other files are written and flushed first, then the marker is
renamed into place. Two checkpoints are kept, so that one of them is whole at every moment.

The run's own model.safetensors and best.safetensors are hard links to files of a checkpoint, where the file system has
links. So weights lie on disk at most three times: in two checkpoints, and the best. Shards, and the adapters of a
fine-tuning, are merged into a model.safetensors of its own.
"""

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from minigpt.errors import FileError, RunError
from minigpt.runs.record import FORMAT, Metrics, Snapshot
from minigpt.runs.run_directory import RunDirectory, serialize_weights
from minigpt.system.files import explain_os_errors, flush_folder, link_or_copy, write_atomic
from minigpt.system.json_files import parse_dataclass, parse_json, read_run_file

MAX_NUMBER = 2**53  # steps, windows or seconds; more is damage
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
        skipped: the position after a batch with a loss spike, which is left out; 0 for none.
        is_published: True if these are also the weights of the run's model.safetensors: not between evaluations.
    """

    step: int
    is_evaluated: bool
    position: int
    training_seconds: float
    evaluation_seconds: float
    skipped: int
    is_published: bool

    def __post_init__(self) -> None:
        numbers = (self.step, self.position, self.skipped, self.training_seconds, self.evaluation_seconds)
        if not all(0 <= number < MAX_NUMBER for number in numbers):
            raise RunError(f"a checkpoint is damaged: {max(numbers, key=abs)} steps, windows or seconds are too many")


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


class Checkpoints:
    """The checkpoints of a run, and the run's two files of weights. Writing raises FileError."""

    def __init__(self, run: Path) -> None:
        self.run = RunDirectory(run)
        self.path = self.run.checkpoints

    def write(
        self,
        metadata: CheckpointMetadata,
        weights: Mapping[str, Tensor],
        training: Mapping[str, Tensor],
        metrics: Sequence[Metrics],
        snapshots: Sequence[Snapshot],
        *,
        is_best: bool,
        merged: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a checkpoint of one process, and drop old ones.

        Args:
            metadata: the numbers.
            weights: the weights by name, on the CPU.
            training: everything else by name, on the CPU.
            metrics: the evaluations so far.
            snapshots: the texts so far.
            is_best: as for `commit`.
            merged: as for `commit`.
        """
        path = self.begin(metadata.step)
        contents = {MODEL: serialize_weights(weights), TRAINING: serialize_weights(training)}
        for name, content in contents.items():
            write_atomic(path / name, content)
        files = {name: _describe(content) for name, content in contents.items()}
        self.commit(metadata, metrics, snapshots, files, is_best=is_best, merged=merged)

    def begin(self, step: int) -> Path:
        """Make an empty directory for the checkpoint of a step, and return it."""
        path = self.locate(step)
        with explain_os_errors("make the directory", path):
            if path.exists():  # a checkpoint of the same step, or one that was not finished
                (path / MARKER).unlink(missing_ok=True)
                shutil.rmtree(path)
            self.path.mkdir(exist_ok=True)  # but not the run's directory: the user may have moved it away
            path.mkdir()
        return path

    def locate(self, step: int) -> Path:
        """Return the path of the checkpoint of a step."""
        return self.path / f"{step:08}"

    def commit(
        self,
        metadata: CheckpointMetadata,
        metrics: Sequence[Metrics],
        snapshots: Sequence[Snapshot],
        files: dict[str, dict[str, int | str]] | None = None,
        *,
        is_best: bool,
        merged: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the marker, which makes the files of a step a checkpoint. Then drop old ones.

        Args:
            metadata: the numbers.
            metrics: the evaluations so far.
            snapshots: the texts so far.
            files: size and SHA-256 of its files by name; None for shards, which are then read.
            is_best: whether no earlier evaluation has better weights; else those are linked into the checkpoint.
            merged: the weights of the run's model.safetensors, if they are not those of the checkpoint.
        """
        path = self.locate(metadata.step)
        if files is None:
            files = {f"{SHARDS}/{shard.name}": _describe_file(shard) for shard in (path / SHARDS).glob("*.safetensors")}
            with explain_os_errors("flush", path / SHARDS):
                flush_folder(path / SHARDS)
        best = self.run.best if self.run.best.exists() else self.run.model  # or the last evaluation was the best
        if not is_best and best.exists():
            link_or_copy(best, path / BEST)
            files[BEST] = _describe_file(path / BEST)
        marker = {
            "format": FORMAT,
            "files": files,
            "metadata": dataclasses.asdict(metadata),
            "metrics": [dataclasses.asdict(each) for each in metrics],
            "snapshots": [dataclasses.asdict(each) for each in snapshots],
        }
        write_atomic(path / MARKER, json.dumps(marker).encode())
        if metadata.is_published:
            self._publish(path, path / BEST, merged)
        self._drop_old(metadata)

    def newest(self, say: Callable[[str], None] = lambda message: None) -> Checkpoint:
        """Return the newest checkpoint that is whole.

        Args:
            say: called with a sentence for each broken one.

        Raises:
            RunError: there is none.
        """
        paths = self.paths()
        for path in paths:
            try:
                return open_checkpoint(path)
            except (RunError, FileError) as error:
                say(f"{error}{'; the checkpoint before it is used' if path != paths[-1] else ''}")
        raise RunError(f"{str(self.run.path)!r} has no checkpoint to resume from: train it again")

    def paths(self) -> list[Path]:
        """Return the directories that have a marker, the newest first."""
        with explain_os_errors("look into", self.path):
            markers = self.path.glob(f"*/{MARKER}") if self.path.is_dir() else []
            found = [marker.parent for marker in markers if marker.parent.name.isdecimal()]
            return sorted(found, key=lambda path: int(path.name), reverse=True)

    def require_no_links(self) -> None:
        """Raise RunError if a file of the run is a symbolic link, through which a training could write elsewhere."""
        run = self.run
        for path in [*run.files(), *self.path.glob("*"), *self.path.glob("*/*"), *self.path.glob("*/*/*")]:
            if path.is_symlink():
                raise RunError(f"{str(path)!r} is a link, so the run cannot resume safely: put the file itself there")

    def restore_run(self, checkpoint: Checkpoint, weights: Mapping[str, Tensor]) -> int:
        """Make the run's files what they were at a checkpoint, and drop the checkpoints after it, which are broken.

        Args:
            checkpoint: the checkpoint to resume from.
            weights: its weights, whole.

        Returns:
            The step of the run's model.safetensors.
        """
        self.run.remove_temporary_files()
        self._remove([path for path in self.paths() if int(path.name) > checkpoint.metadata.step])
        source = checkpoint
        if not checkpoint.metadata.is_published and not checkpoint.is_sharded:
            source = self._newest_published() or checkpoint
        self._publish(source.path, checkpoint.path / BEST, weights if checkpoint.is_sharded else None)
        if checkpoint.metrics:
            self.run.write_metrics(checkpoint.metrics)
        if checkpoint.snapshots:
            self.run.write_snapshots(checkpoint.snapshots)
        return source.metadata.step

    def _publish(self, path: Path, best: Path, merged: Mapping[str, Tensor] | None) -> None:
        """Make the weights of a checkpoint the run's own; `best` may be missing, and then the run has no best file."""
        if best.exists():
            link_or_copy(best, self.run.best)
        if merged is None:
            link_or_copy(path / MODEL, self.run.model)
        else:
            self.run.write_weights(merged)
        if not best.exists():
            with explain_os_errors("remove", self.run.best):
                self.run.best.unlink(missing_ok=True)

    def _newest_published(self) -> Checkpoint | None:
        """Return the newest whole checkpoint, in one file, whose weights are the run's own."""
        for path in filter(_is_published, self.paths()):
            with suppress(RunError, FileError):
                checkpoint = open_checkpoint(path)
                if not checkpoint.is_sharded:
                    return checkpoint
        return None

    def _drop_old(self, newest: CheckpointMetadata) -> None:
        """Keep the newest checkpoint and one before it, so that the newest published one is among the two."""
        path = self.locate(newest.step)
        older = [other for other in self.paths() if other != path]
        published = [] if newest.is_published else [*filter(_is_published, older)]
        kept = [path, *(published or older)[:1]]
        with explain_os_errors("look into", self.path):
            directories = [path for path in self.path.iterdir() if path.name.isdecimal()]
        self._remove([path for path in directories if path not in kept])

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            with explain_os_errors("remove", path):
                if path.is_dir() and not path.is_symlink():
                    (path / MARKER).unlink(missing_ok=True)  # first: a half removed checkpoint must not look whole
                    shutil.rmtree(path)


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


def _is_published(path: Path) -> bool:
    """Return whether the marker in a directory says that its weights are the run's own."""
    try:
        return parse_json(read_run_file(path / MARKER), "")["metadata"]["is_published"] is True
    except (RunError, FileError, LookupError, TypeError):
        return False


def _list_shards(path: Path) -> set[str]:
    """Return the names of a checkpoint's shards in its marker; a name that no file has if there are none."""
    with explain_os_errors("look into", path):
        shards = (path / SHARDS).glob("*.safetensors") if (path / SHARDS).is_dir() else []
        return {f"{SHARDS}/{shard.name}" for shard in shards} or {""}


def _describe(content: bytes) -> dict[str, int | str]:
    """Return the size and SHA-256 of a file's content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _describe_file(path: Path) -> dict[str, int | str]:
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
    if _describe_file(path) != description:
        raise RunError(f"{str(path)!r} is damaged: its content has changed")


def suggest_resume(run: Path) -> str:
    """Return what to type to resume a run."""
    return f"to resume: minigpt train --resume {shlex.quote(str(run))}"


def describe_unfinished(run: Path) -> str:
    """Return a line that says how to resume an unfinished run; an empty string for any other directory."""
    try:
        can_resume = RunDirectory(run).read_record().status in ("unfinished", "interrupted")
        can_resume = can_resume and bool(Checkpoints(run).paths())
    except (RunError, FileError):
        return ""
    return f"       {run} is not finished; {suggest_resume(run)}" if can_resume else ""

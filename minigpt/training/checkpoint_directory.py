"""The checkpoints of a run: write one, find the newest, drop old ones.

Two checkpoints are kept, so that one of them is whole at every moment. The run's own model.safetensors and
best.safetensors are hard links to files of a checkpoint, where the file system has links. So weights lie on disk at
most three times: in two checkpoints, and the best. Shards, and the adapters of a fine-tuning, are merged into a
model.safetensors of its own.
"""

import dataclasses
import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from torch import Tensor

from minigpt.errors import FileError, RunError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import FORMAT, Metrics, Snapshot
from minigpt.system.advice import choose_advice
from minigpt.system.files import explain_os_errors, flush_folder, link_or_copy, write_atomic
from minigpt.system.json_files import parse_json, read_run_file
from minigpt.training.checkpoint_format import (
    BEST,
    MARKER,
    MODEL,
    SHARDS,
    TRAINING,
    Checkpoint,
    CheckpointMetadata,
    describe_content,
    describe_file,
    open_checkpoint,
)


class CheckpointDirectory:
    """A run's folder of checkpoints, and the run's two files of weights. Writing raises FileError."""

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
            weights: the weights by name, contiguous on the CPU.
            training: everything else by name, contiguous on the CPU.
            metrics: the evaluations so far.
            snapshots: the texts so far.
            is_best: as for `commit`.
            merged: as for `commit`.
        """
        path = self.create(metadata.step)
        contents = {MODEL: safetensors.torch.save(dict(weights)), TRAINING: safetensors.torch.save(dict(training))}
        for name, content in contents.items():
            write_atomic(path / name, content, like=self.run.model)
        files = {name: describe_content(content) for name, content in contents.items()}
        self.commit(metadata, metrics, snapshots, files, is_best=is_best, merged=merged)

    def create(self, step: int) -> Path:
        """Make an empty directory for the checkpoint of a step, and return it."""
        path = self.get_path(step)
        with explain_os_errors("make the directory", path):
            if path.exists():  # a checkpoint of the same step, or one that was not finished
                (path / MARKER).unlink(missing_ok=True)
                shutil.rmtree(path)
            self.path.mkdir(exist_ok=True)  # but not the run's directory: the user may have moved it away
            path.mkdir()
        return path

    def get_path(self, step: int) -> Path:
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
        path = self.get_path(metadata.step)
        if files is None:
            files = {f"{SHARDS}/{shard.name}": describe_file(shard) for shard in (path / SHARDS).glob("*.safetensors")}
            with explain_os_errors("flush", path / SHARDS):
                flush_folder(path / SHARDS)
        best = self.run.best if self.run.best.exists() else self.run.model  # or the last evaluation was the best
        if not is_best and best.exists():
            link_or_copy(best, path / BEST)
            files[BEST] = describe_file(path / BEST)
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

    def open_newest(self, say: Callable[[str], None] = lambda message: None) -> Checkpoint:
        """Open the newest checkpoint that is whole.

        Args:
            say: called with a sentence for each broken one.

        Raises:
            RunError: there is none.
        """
        paths = self.list_paths()
        for path in paths:
            try:
                return open_checkpoint(path)
            except (RunError, FileError) as error:
                say(f"{error}{'; the checkpoint before it is used' if path != paths[-1] else ''}")
        raise RunError(f"{str(self.run.path)!r} has no checkpoint to resume from: train it again")

    def list_paths(self) -> list[Path]:
        """Return the directories that have a marker, the newest first."""
        with explain_os_errors("look into", self.path):
            markers = self.path.glob(f"*/{MARKER}") if self.path.is_dir() else []
            found = [marker.parent for marker in markers if marker.parent.name.isdecimal()]
            return sorted(found, key=lambda path: int(path.name), reverse=True)

    def require_no_links(self) -> None:
        """Raise RunError if a file of the run is a symbolic link: the training could write elsewhere."""
        run = self.run
        for path in [*run.list_files(), *self.path.glob("*"), *self.path.glob("*/*"), *self.path.glob("*/*/*")]:
            if path.is_symlink():
                raise RunError(f"{str(path)!r} is a link, so the run cannot resume safely: put the file itself there")

    def restore_run(self, checkpoint: Checkpoint, weights: Mapping[str, Tensor], is_merged: bool = False) -> int:
        """Make the run's files what they were at a checkpoint, and drop the checkpoints after it, which are broken.

        Args:
            checkpoint: the checkpoint to resume from.
            weights: its weights, whole.
            is_merged: True if the run's weights are not a file of the checkpoint, but merged from adapters.

        Returns:
            The step of the run's model.safetensors.
        """
        self.run.remove_temporary_files()
        self._remove([path for path in self.list_paths() if int(path.name) > checkpoint.metadata.step])
        source, has_own_file = checkpoint, checkpoint.is_sharded or is_merged
        if not checkpoint.metadata.is_published and not has_own_file:
            source = self._open_newest_published() or checkpoint
        self._publish(source.path, checkpoint.path / BEST, weights if has_own_file else None)
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

    def _open_newest_published(self) -> Checkpoint | None:
        """Open the newest whole checkpoint, in one file, whose weights are the run's own."""
        for path in filter(_is_published, self.list_paths()):
            with suppress(RunError, FileError):
                checkpoint = open_checkpoint(path)
                if not checkpoint.is_sharded:
                    return checkpoint
        return None

    def _drop_old(self, newest: CheckpointMetadata) -> None:
        """Keep the newest checkpoint and one before it, so that the newest published one is among the two."""
        path = self.get_path(newest.step)
        older = [other for other in self.list_paths() if other != path]
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


def _is_published(path: Path) -> bool:
    """Return True if the marker in a directory says that its weights are the run's own."""
    try:
        return parse_json(read_run_file(path / MARKER), "")["metadata"]["is_published"] is True
    except (RunError, FileError, LookupError, TypeError):
        return False


def suggest_resume(run: Path, is_finetuned: bool = False) -> str:
    """Return what to type to resume a run."""
    command = f"minigpt {'finetune' if is_finetuned else 'train'} --resume {shlex.quote(str(run))}"
    return f"to resume: {choose_advice(command, f'minigpt.resume({str(run)!r})')}"


def describe_unfinished(run: Path) -> str:
    """Return a line that says how to resume an unfinished run; an empty string for any other directory."""
    try:
        info = RunDirectory(run).read_info()
        can_resume = info.status in ("unfinished", "interrupted") and bool(CheckpointDirectory(run).list_paths())
    except (RunError, FileError):
        return ""
    return f"       {run} is not finished; {suggest_resume(run, info.base is not None)}" if can_resume else ""

"""Saves: all that a training needs to go on as if it had never stopped, bit for bit.

    saves/00000500/model.safetensors      the weights after 500 steps
    saves/00000500/training.safetensors   the optimizer's averages, and the state of every random generator
    saves/00000500/best.safetensors       the weights of an earlier evaluation, where that one was better
    saves/00000500/save.json              all else, and how long each of the other files is and its SHA-256
    saves/00000500/parts/                 in the place of the first two, if many processes trained

A save exists only once its marker, save.json, does: it is renamed into place last, when the others have been flushed to
the disk. Two are kept, so that one is whole whatever happens, and a broken one is named.
"""

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from minigpt.errors import FileError, RunError
from minigpt.runs.run_directory import Metrics, RunFolder, Snapshot
from minigpt.system.files import explain_os_errors, flush_folder, write_atomic
from minigpt.system.json_files import parse_dataclass, parse_json, read_run_file

FORMAT = 2
KEPT = 2
LARGEST = 2**53  # steps, windows or seconds
MODEL, TRAINING, BEST, MARKER = "model.safetensors", "training.safetensors", "best.safetensors", "save.json"
PARTS = "parts"


@dataclass(frozen=True)
class Moment:
    """How far a training is.

    Attributes:
        step: how many are made.
        evaluated: whether the evaluation due at this step has been made and kept.
        position: of the data, windows drawn.
        training_seconds: spent on steps.
        evaluation_seconds: spent on evaluations.
        skipped: the position after a batch at which the loss jumped, and which is left out; 0 for none.
        kept: whether the weights are also those of the run's model.safetensors: not between evaluations.
    """

    step: int
    evaluated: bool
    position: int
    training_seconds: float
    evaluation_seconds: float
    skipped: int
    kept: bool

    def __post_init__(self) -> None:
        numbers = (self.step, self.position, self.skipped, self.training_seconds, self.evaluation_seconds)
        if not all(0 <= number < LARGEST for number in numbers):
            raise RunError(f"a save is damaged: it says that {max(numbers, key=abs)} steps, windows or seconds passed")


@dataclass(frozen=True)
class Save:
    """A save on disk, found whole."""

    path: Path
    moment: Moment
    metrics: list[Metrics]
    snapshots: list[Snapshot]
    in_parts: bool = False

    @property
    def model(self) -> Path:
        """The file of its weights, or the folder of all its parts."""
        return self.path / (PARTS if self.in_parts else MODEL)

    @property
    def training(self) -> Path:
        """The file of its optimizer and generators, or the folder of all its parts."""
        return self.path / (PARTS if self.in_parts else TRAINING)

    @property
    def best(self) -> Path | None:
        """The file of better weights, if an earlier evaluation had any."""
        path = self.path / BEST
        return path if path.exists() else None


class Saves:
    """The saves of a run."""

    def __init__(self, run: Path) -> None:
        self.run, self.folder = run, RunFolder(run).saves

    def write(
        self,
        moment: Moment,
        weights: Mapping[str, Tensor],
        training: Mapping[str, Tensor],
        metrics: list[Metrics],
        snapshots: list[Snapshot],
    ) -> None:
        """Make a save, and drop those before the last two. Raises FileError, with those before intact."""
        path = self.begin(moment.step)
        contents = {MODEL: safetensors.torch.save(dict(weights)), TRAINING: safetensors.torch.save(dict(training))}
        for name, content in contents.items():
            write_atomic(path / name, content)
        files = {name: described(content) for name, content in contents.items()}
        self.finish(moment, metrics, snapshots, files)

    def begin(self, step: int) -> Path:
        """The folder of a save to be made, empty. Raises FileError."""
        path = self.place(step)
        with explain_os_errors("make the folder", path):
            if path.exists():  # a save of the same step, or what was to become one
                (path / MARKER).unlink(missing_ok=True)
                shutil.rmtree(path)
            self.folder.mkdir(exist_ok=True)  # but never the run's: a folder that was moved away stays away
            path.mkdir()
        return path

    def place(self, step: int) -> Path:
        """The folder of the save of that step; many processes write their parts of it into PARTS in there."""
        return self.folder / f"{step:08}"

    def finish(
        self,
        moment: Moment,
        metrics: list[Metrics],
        snapshots: list[Snapshot],
        files: dict[str, dict[str, int | str]] | None = None,
    ) -> None:
        """Write the marker, by which what lies there, those files or parts, is a save. Raises FileError."""
        path = self.place(moment.step)
        if files is None:
            files = {f"{PARTS}/{part.name}": described_file(part) for part in (path / PARTS).glob("*.safetensors")}
            with explain_os_errors("flush", path / PARTS):
                flush_folder(path / PARTS)
        folder = RunFolder(self.run)
        best = folder.best if folder.best.exists() else folder.model  # the last evaluation's, if that was the best
        if best.exists() and (best == folder.best or not moment.kept):
            content = read(best)
            write_atomic(path / BEST, content)
            files[BEST] = described(content)
        marker = {
            "format": FORMAT,
            "files": files,
            "moment": dataclasses.asdict(moment),
            "metrics": [dataclasses.asdict(each) for each in metrics],
            "snapshots": [dataclasses.asdict(each) for each in snapshots],
        }
        write_atomic(path / MARKER, json.dumps(marker).encode())
        self.forget()

    def newest(self, say: Callable[[str], None] = lambda message: None) -> Save:
        """The newest one that is whole; one that is broken is named, by `say`. Raises RunError if there is none."""
        paths = self.paths()
        for path in paths:
            try:
                return opened(path)
            except (RunError, FileError) as error:
                say(f"{error}{'; the save before it is used' if path != paths[-1] else ''}")
        raise RunError(f"{str(self.run)!r} has no save to go on from: train it anew")

    def paths(self) -> list[Path]:
        """The folders of the saves that have a marker, the newest first."""
        with explain_os_errors("look into", self.folder):
            markers = self.folder.glob(f"*/{MARKER}") if self.folder.is_dir() else []
            found = [marker.parent for marker in markers if marker.parent.name.isdecimal()]
            return sorted(found, key=lambda path: int(path.name), reverse=True)

    def forget(self) -> None:
        """Drop all but the last two, and what is left of those that were never made whole."""
        kept = self.paths()[:KEPT]
        with explain_os_errors("drop saves in", self.folder):
            for path in self.folder.iterdir():
                if path not in kept and path.name.isdecimal() and path.is_dir() and not path.is_symlink():
                    (path / MARKER).unlink(missing_ok=True)  # first: what is half gone must not look whole
                    shutil.rmtree(path)

    def require_no_links(self) -> None:
        """Raise RunError for a run of which a part is a link: what goes on there must not write anywhere else."""
        folder = RunFolder(self.run)
        for path in [*folder.files(), *self.folder.glob("*"), *self.folder.glob("*/*"), *self.folder.glob("*/*/*")]:
            if path.is_symlink():
                raise RunError(f"{str(path)!r} is a link, and the run cannot go on safely: put the file there")

    def restore(self, save: Save, weights: Mapping[str, Tensor]) -> None:
        """Make the run's folder what it was at that save, which has those weights. Raises FileError."""
        folder = RunFolder(self.run)
        folder.sweep()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        write_atomic(folder.model, safetensors.torch.save(tensors))
        if save.best:
            write_atomic(folder.best, read(save.best))
        else:
            with explain_os_errors("remove", folder.best):
                folder.best.unlink(missing_ok=True)
        if save.metrics:
            folder.write_metrics(save.metrics)
        if save.snapshots:
            folder.write_snapshots(save.snapshots)


def opened(path: Path) -> Save:
    """A save, every file of it checked. Raises RunError, naming what is broken."""
    where = f"{str(path / MARKER)!r}"
    content = parse_json(read_run_file(path / MARKER), where)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{where} is damaged or from another version")
    files = content.get("files")
    if not isinstance(files, dict) or files.keys() - {BEST} not in ({MODEL, TRAINING}, names_of_parts(path)):
        raise RunError(f"{where} is damaged: its files are not those of a save")
    for name, about in files.items():
        require_whole(path / name, about)
    if (path / BEST).exists() != (BEST in files):
        raise RunError(f"{where} is damaged: it knows nothing of {BEST}")
    lists: dict[str, list[Any]] = {"metrics": [], "snapshots": []}
    for name, kind in (("metrics", Metrics), ("snapshots", Snapshot)):
        entries = content.get(name)
        if not isinstance(entries, list):
            raise RunError(f"{where} is damaged: its {name} are no list")
        lists[name] = [parse_dataclass(kind, entry, f"{where}, {name}") for entry in entries]
    moment = parse_dataclass(Moment, content.get("moment"), f"{where}, moment")
    if f"{moment.step:08}" != path.name:
        raise RunError(f"{where} is damaged: it is not of step {path.name}")
    return Save(path, moment, lists["metrics"], lists["snapshots"], MODEL not in files)


def names_of_parts(path: Path) -> set[str]:
    """What the parts of a save are called in its marker; what none has, if there are none."""
    with explain_os_errors("look into", path):
        parts = (path / PARTS).glob("*.safetensors") if (path / PARTS).is_dir() else []
        return {f"{PARTS}/{part.name}" for part in parts} or {""}


def described(content: bytes) -> dict[str, int | str]:
    """How the marker knows a file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def described_file(path: Path) -> dict[str, int | str]:
    """The same of one that lies on the disk, and may be large."""
    with explain_os_errors("read", path), path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def require_whole(path: Path, about: Any) -> None:
    """Raise RunError unless the file is as long as it says and has its SHA-256."""
    if not isinstance(about, dict) or not path.is_file():
        raise RunError(f"{str(path)!r} is missing")
    with explain_os_errors("read", path):
        if path.stat().st_size != about.get("bytes"):
            raise RunError(f"{str(path)!r} is damaged: it is not as long as it was")
    if described_file(path) != about:
        raise RunError(f"{str(path)!r} is damaged: it is not what was saved")


def read(path: Path) -> bytes:
    """A file of this run's own. Raises FileError."""
    with explain_os_errors("read", path):
        return path.read_bytes()


def waiting(run: RunFolder) -> str:
    """Where there is a run that was not finished, what to type for it to go on; nothing else."""
    try:
        going = run.read_record().status in ("unfinished", "interrupted") and Saves(run.path).paths()
    except (RunError, FileError):
        return ""
    return f"       {run.path} was not finished; {going_on(run.path)}" if going else ""


def going_on(run: Path) -> str:
    """What to type for a run to go on."""
    return f"to go on: minigpt train --resume {shlex.quote(str(run))}"

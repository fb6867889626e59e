"""A run on disk: which files it has, how each is written, and how each is read as untrusted input.

    config.toml         the settings; `minigpt train --config` takes it
    tokenizer.json      the vocabulary; tokenizer.model if it is SentencePiece's
    model.safetensors   the last weights
    best.safetensors    the weights of an earlier evaluation, if that one was better
    metrics.jsonl       one line for each evaluation
    snapshots.jsonl     texts that the model wrote during training, each from the same start and seed
    samples.txt         the same texts, easy to read
    loss.png            the learning curves, from three evaluations on
    events.out.tfevents.*.minigpt  the metrics and samples for TensorBoard, with `--log-to tensorboard`
    run.json            about the training: data, versions, parameters, exact validation loss, times
    checkpoints/        what the training needs in order to resume: training/checkpoint_format.py
    finetuning.json     of a fine-tuned run: what was learned, and which weights trained
    adapter/            of a fine-tuned run: the adapter alone, in PEFT's format
    tasks.jsonl, .png   of a run that learned tasks: the accuracy at each evaluation
    look/               the views of `minigpt look`
    bits.png            the loss by bits per weight, from `minigpt quantize --study`

Each file is replaced as a whole or not at all. No file is a pickle: opening an untrusted run never executes code.
This module does not import PyTorch, so that `minigpt info` answers at once.
"""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minigpt.config import Config
from minigpt.errors import ConfigError, FileError, RunError, suggest_name
from minigpt.runs.run_info import FinetuningInfo, Metrics, RunInfo, Snapshot, read_run_info
from minigpt.system.advice import format_setting
from minigpt.system.files import explain_os_errors, flush_folder, lock_file, require_inside, write_atomic
from minigpt.system.json_files import (
    format_json_lines,
    parse_dataclass,
    parse_json,
    read_dataclass_lines,
    read_run_file,
)
from minigpt.system.process_file import name_process
from minigpt.system.terminal import escape_control_characters
from minigpt.tokenizers.base import Tokenizer, compute_fingerprint
from minigpt.tokenizers.loading import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

LOCK = ".lock"  # held by the process that trains the run
PROCESS = ".process"  # names that process
EVENT_FILES = "events.out.tfevents.*.minigpt"  # TensorBoard reads a file with "tfevents" in its name
Weights = Literal["last", "best"]


class RunDirectory:
    """The files of one run.

    Reading raises RunError, which names the file and what is wrong. Writing raises FileError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.tokenizer = path / "tokenizer.json"
        self.sentencepiece = path / "tokenizer.model"
        self.model = path / "model.safetensors"
        self.best = path / "best.safetensors"
        self.metrics = path / "metrics.jsonl"
        self.snapshots = path / "snapshots.jsonl"
        self.samples = path / "samples.txt"
        self.loss_plot = path / "loss.png"
        self.info = path / "run.json"
        self.checkpoints = path / "checkpoints"
        self.finetuning = path / "finetuning.json"
        self.adapter = path / "adapter"
        self.task_log = path / "tasks.jsonl"
        self.task_plot = path / "tasks.png"
        self.look = path / "look"
        self.bit_depths = path / "bits.png"

    @classmethod
    def create(cls, wanted: Path) -> "RunDirectory":
        """Make a directory for a new run, and return it.

        Args:
            wanted: its path. If that is taken, a number is added to the name.

        Raises:
            RunError: no run can have that name.
            FileError: the directory cannot be made.
        """
        try:
            str(wanted).encode()
        except UnicodeEncodeError:
            raise RunError(f"the name {str(wanted)!r} is not UTF-8: choose another {format_setting('out')}") from None
        with explain_os_errors("create the run directory", wanted):
            wanted.parent.mkdir(parents=True, exist_ok=True)
            for number in itertools.count(1):
                folder = cls(wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}"))
                if folder._claim():
                    return folder
                if wanted.name in ("", ".."):
                    raise RunError(
                        f"the directory {str(wanted)!r} is not empty: name a new one with {format_setting('out')}"
                    )
        raise AssertionError("there is always a next number")

    def _claim(self) -> bool:
        """Make the directory. Return True if this process got it: of two at the same time, only one succeeds."""
        try:
            self.path.mkdir(exist_ok=True)
            if any(self.path.iterdir()):
                return False
            self.config.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training this run during the block, and name this one in the run's directory.

        Raises:
            RunError: another process already trains the run.
        """
        message = f"another process is training {str(self.path)!r}: wait for it, or stop it"
        with lock_file(self.path / LOCK, message, RunError), name_process(self.path / PROCESS):
            yield

    def take_place_of(self, old: "RunDirectory") -> None:
        """Move this run to the path of another run, and delete that one.

        The user's own files in the old run's directory move along. After a kill at any moment, both directories are
        whole, or only old files are left to delete.

        Raises:
            FileError: the directory cannot be moved; then the old run is where it was.
        """
        path = Path(os.path.realpath(old.path))  # through a link, so that the link stays
        with explain_os_errors("replace the run", path):
            aside = next(
                p for n in itertools.count(1) if not (p := path.with_name(f"{path.name}-replaced-{n}")).exists()
            )
            path.replace(aside)
            try:
                self.path.replace(path)
            except OSError:
                aside.replace(path)
                raise
            written = [*self.list_files(), *RunDirectory(aside).list_event_files()]
            ours = {file.name for file in written} | {LOCK, PROCESS}
            for file in aside.iterdir():
                if file.name not in ours and not fnmatch(file.name, ".*.tmp"):
                    file.replace(path / file.name)
            flush_folder(path.parent)
            shutil.rmtree(aside)

    def require_exists(self) -> None:
        """Raise RunError, with the nearest name, if there is no such directory."""
        with explain_os_errors("open the run", self.path):
            if not self.path.is_dir():
                siblings = [str(path) for path in self.path.parent.glob("*") if path.is_dir()]
                advice = suggest_name(str(self.path), siblings) or ": name the directory of a run"
                raise RunError(f"there is no run {str(self.path)!r}{advice}")

    def require_run_or_empty(self) -> None:
        """Raise RunError if the directory holds something other than a run, which must not be overwritten."""
        with explain_os_errors("look into", self.path):
            empty = not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
            if not empty and not self.info.is_file():
                raise RunError(
                    f"{str(self.path)!r} is not a run, so it is not overwritten: choose another {format_setting('out')}"
                )

    def list_files(self) -> list[Path]:
        """Return every path that a run may have, in the order of the list above, without TensorBoard's files."""
        return [path for name, path in vars(self).items() if name != "path"]

    def list_event_files(self) -> list[Path]:
        """Return TensorBoard's event files in the order of their start. All but the last are empty."""
        return sorted(self.path.glob(EVENT_FILES))

    def require_no_links_outside(self) -> None:
        """Raise RunError for a file that opening the run reads and that is a link to a place outside the run."""
        not_read = {self.adapter, self.task_log, self.task_plot, self.look, self.bit_depths}
        try:
            require_inside(self.path, [path for path in self.list_files() if path not in not_read])
        except FileError as error:
            raise RunError(str(error)) from None

    def write_config(self, config: Config) -> None:
        """Write the configuration."""
        write_atomic(self.config, config.to_toml().encode())

    def read_config(self) -> Config:
        """Return the configuration."""
        try:
            return Config.from_toml(read_run_file(self.config), complete=True)
        except ConfigError as error:
            raise RunError(f"{str(self.config)!r} is damaged or from another version: {error}") from None

    def write_tokenizer(self, tokenizer: Tokenizer, config: Config) -> None:
        """Write the tokenizer, under the file name of its kind."""
        tokenizer.save(self._get_tokenizer_path(config))

    def read_tokenizer(self, config: Config, info: RunInfo) -> Tokenizer:
        """Return the tokenizer that the model was trained with."""
        path = self._get_tokenizer_path(config)
        try:
            tokenizer = load_tokenizer(path)
        except FileError as error:
            raise RunError(str(error)) from None
        if tokenizer.vocab_size != config.model.vocab_size:
            raise RunError(
                f"{str(path)!r} is not this run's: it has {tokenizer.vocab_size} tokens, "
                f"but the model {config.model.vocab_size}"
            )
        if info.tokenizer_sha256 not in (None, compute_fingerprint(tokenizer)):
            raise RunError(f"{str(path)!r} is not this run's: the model was trained with other tokens")
        return tokenizer

    def _get_tokenizer_path(self, config: Config) -> Path:
        return self.sentencepiece if config.training.tokenizer == "sentencepiece" else self.tokenizer

    def write_info(self, info: RunInfo) -> None:
        """Write run.json."""
        write_atomic(self.info, json.dumps(dataclasses.asdict(info), indent=2).encode() + b"\n")

    def read_info(self) -> RunInfo:
        """Read run.json."""
        return read_run_info(self.info)

    def write_finetuning_info(self, finetuning: FinetuningInfo) -> None:
        """Write finetuning.json."""
        write_atomic(self.finetuning, json.dumps(dataclasses.asdict(finetuning), indent=2).encode() + b"\n")

    def read_finetuning_info(self) -> FinetuningInfo:
        """Read finetuning.json."""
        where = f"{str(self.finetuning)!r}"
        return parse_dataclass(FinetuningInfo, parse_json(read_run_file(self.finetuning), where), where)

    def write_metrics(self, metrics: list[Metrics]) -> None:
        """Write every evaluation, one line each."""
        write_atomic(self.metrics, format_json_lines(metrics))

    def read_metrics(self, info: RunInfo) -> list[Metrics]:
        """Return every evaluation in order. Raise RunError if a finished run lacks its last ones."""
        if info.status == "imported":  # another program trained it
            return []
        metrics = read_dataclass_lines(self.metrics, Metrics)
        # An interrupted run has no line for its last step.
        if info.status == "finished" and metrics[-1].step < info.step:
            last = f"it ends at step {metrics[-1].step:,}, the run at {info.step:,}"
            raise RunError(f"{str(self.metrics)!r} is cut short: {last}")
        return metrics

    def read_snapshots(self) -> list[Snapshot]:
        """Return the snapshots in order; an empty list if the run has none."""
        return read_dataclass_lines(self.snapshots, Snapshot) if self.snapshots.exists() else []

    def write_snapshots(self, snapshots: list[Snapshot]) -> None:
        """Write the snapshots: one line each, and under headings in a text file."""
        write_atomic(self.snapshots, format_json_lines(snapshots))
        texts = [
            f"step {s.step:,}, validation loss {s.validation_loss:.4f}\n{escape_control_characters(s.text)}\n\n"
            for s in snapshots
        ]
        write_atomic(self.samples, "".join(texts).encode("utf-8", "backslashreplace"))

    def write_weights(self, weights: "Mapping[str, Tensor]") -> None:
        """Write the last weights."""
        from minigpt.runs.weight_file import serialize_weights

        write_atomic(self.model, serialize_weights(weights))

    def remove_temporary_files(self) -> None:
        """Remove the files that a killed process left half written. Raise FileError."""
        for file in self.path.glob(".*.tmp"):
            with explain_os_errors("remove", file):
                file.unlink(missing_ok=True)

    def load_weights(self, model: "nn.Module", which: Weights = "last") -> None:
        """Load the last or the best weights into a model of the right shape, which may be on the meta device."""
        from minigpt.runs.weight_file import read_weights

        path = self.best if which == "best" and self.best.exists() else self.model
        weights = read_weights(path, model.state_dict())
        model.load_state_dict(weights, assign=True)


def find_newest_run(runs: Path = Path("runs")) -> Path:
    """Return the newest run in `runs` that has weights. Raise RunError if there is none."""
    with explain_os_errors("look for runs in", runs):
        found = [path for path in runs.glob("*/run.json") if path.with_name("model.safetensors").is_file()]
        if not found:
            raise RunError(f"there is no run in '{runs}' yet: name a run's directory, or make one with: minigpt train")
        return max(found, key=lambda path: (path.stat().st_mtime, path)).parent

"""A run on disk: which files it has, how each is written, and how each is read back with suspicion.

    config.toml         what was asked for; `minigpt train --config` takes it
    tokenizer.json      the vocabulary; tokenizer.model if it is SentencePiece's
    model.safetensors   the last weights
    best.safetensors    the weights of an earlier evaluation, where that one was better
    metrics.jsonl       a line for each evaluation
    snapshots.jsonl     what the model wrote on the way, from the same start and seed, with the loss
    samples.txt         the same for people
    loss.png            the learning curves
    run.json            the record: data, versions, parameters, exact validation loss, times
    saves/              all that the training needs to go on, twice: training/checkpoint.py

Every file is replaced whole or not at all, and none is a pickle: to open a stranger's run never
runs the stranger's code.
"""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import safetensors.torch
import torch
from torch import nn

from minigpt.config import Config
from minigpt.errors import ConfigError, FileError, RunError
from minigpt.system.files import explain_os_errors, require_inside, write_atomic
from minigpt.system.json_files import format_json_lines, parse_dataclass, parse_json, read_json_lines, read_run_file
from minigpt.system.safetensors_files import open_safetensors
from minigpt.system.terminal import escape_control_characters
from minigpt.tokenizers.base import Tokenizer, fingerprint
from minigpt.tokenizers.loading import load_tokenizer

FORMAT = 1
LOCK = ".lock"  # held by the process that trains the run
STORED = {torch.float32: "F32", torch.float64: "F64", torch.int8: "I8", torch.uint8: "U8"}  # as safetensors says
Weights = Literal["last", "best"]
Status = Literal["unfinished", "finished", "interrupted", "diverged", "imported"]


@dataclass(frozen=True)
class Metrics:
    """One evaluation, one line of metrics.jsonl. Losses are in nats, `seconds` of training alone."""

    step: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float
    characters: int


@dataclass(frozen=True)
class Snapshot:
    """What the model wrote at one of the evaluations."""

    step: int
    validation_loss: float
    text: str


@dataclass(frozen=True)
class Record:
    """What run.json holds. `validation_loss` is the exact one, of the last weights, once it is known."""

    status: Status
    started: str
    data_source: str
    data_characters: int
    data_sha256: str
    parameters: int
    device: str
    threads: int
    minigpt_version: str
    torch_version: str
    python_version: str
    platform: str
    format: int = FORMAT
    data_path: str | None = None
    step: int = 0
    validation_loss: float | None = None
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    tokenizer_sha256: str | None = None
    bits_per_byte: float | None = None  # of the exact loss, over the text's UTF-8
    bits_per_character: float | None = None
    predictions: int | None = None  # that the exact loss is the mean of, …
    possible_predictions: int | None = None  # … of so many that could be made
    data_position: int | None = None  # windows read for training
    base: str | None = None  # the run that it was fine-tuned from
    instructions: bool | None = None  # whether it was trained on instructions and answers, not on a text
    exchanges: int | None = None  # questions in the longest of its conversations, if it was
    trained_parameters: int | None = None  # of them, if not all
    generation: str | None = None  # how it writes text: generation/backend_selection.py
    documents: bool | None = None  # whether the data are documents, with an end-of-text token between them
    launch: str | None = None  # the job of torchrun's that began it


LATER = {  # which older records don't have
    "tokenizer_sha256",
    "bits_per_byte",
    "bits_per_character",
    "predictions",
    "possible_predictions",
    "data_position",
    "documents",
    "generation",
    "base",
    "trained_parameters",
    "instructions",
    "exchanges",
    "launch",
}


class RunFolder:
    """The files of one run. Reading raises RunError, naming the file and what is wrong; writing FileError."""

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
        self.figure = path / "loss.png"
        self.record = path / "run.json"
        self.saves = path / "saves"

    @classmethod
    def create(cls, wanted: Path) -> "RunFolder":
        """Make a folder for a new run: `wanted`, or, where that name is taken, with a number added.

        Raises RunError for a name that no run can have, FileError if the folder can't be made.
        """
        try:
            str(wanted).encode()
        except UnicodeEncodeError:
            raise RunError(f"the name {str(wanted)!r} is not UTF-8: choose another --out") from None
        with explain_os_errors("create the run folder", wanted):
            wanted.parent.mkdir(parents=True, exist_ok=True)
            for number in itertools.count(1):
                folder = cls(wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}"))
                if folder.claim():
                    return folder
                if wanted.name in ("", ".."):
                    raise RunError(f"the folder {str(wanted)!r} is not empty: name a new one with --out")
        raise AssertionError("there is always a next number")

    def claim(self) -> bool:
        """Make the folder this process's own, unless something is there; of two processes at once, one succeeds."""
        try:
            self.path.mkdir(exist_ok=True)
            if any(self.path.iterdir()):
                return False
            self.config.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other process trains this run. Raises RunError if one does already, FileError."""
        lock = filelock.FileLock(self.path / LOCK)
        require_inside(self.path, [self.path / LOCK])
        with explain_os_errors("lock the run", self.path):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise RunError(f"another process is training {str(self.path)!r}: wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()  # the file stays: if it went, two processes could hold two locks of one name

    def replace(self, old: "RunFolder") -> None:
        """Take the place of another run: its files go, these move there. Raises FileError."""
        with explain_os_errors("replace the run", old.path):
            for file in [*old.files(), *old.path.glob(".*.tmp")]:
                if file.is_dir() and not file.is_symlink():
                    shutil.rmtree(file)
                else:
                    file.unlink(missing_ok=True)
            for ours, theirs in zip(self.files(), old.files(), strict=True):
                if ours.exists():
                    ours.replace(theirs)
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def require_run(self) -> None:
        """Raise RunError unless this is a run or nothing at all, so that nothing else is ever overwritten."""
        with explain_os_errors("look into", self.path):
            empty = not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
            if not empty and not self.record.is_file():
                raise RunError(f"{str(self.path)!r} is not a run, so it is not overwritten: choose another --out")

    def files(self) -> list[Path]:
        """Every file and folder a run may have, in the order they are named above."""
        return [path for name, path in vars(self).items() if name != "path"]

    def require_no_links_out(self) -> None:
        """Raise RunError for a file that is a link out of the folder: to open a run reads nothing else."""
        try:
            require_inside(self.path, self.files())
        except FileError as error:
            raise RunError(str(error)) from None

    def write_config(self, config: Config) -> None:
        """Write the configuration."""
        write_atomic(self.config, config.to_toml().encode())

    def read_config(self) -> Config:
        """The configuration."""
        try:
            return Config.from_toml(read_run_file(self.config), complete=True)
        except ConfigError as error:
            raise RunError(f"{str(self.config)!r} is damaged or from another version: {error}") from None

    def write_tokenizer(self, tokenizer: Tokenizer, config: Config) -> None:
        """Write the tokenizer under the name of its kind."""
        tokenizer.save(self._tokenizer(config))

    def read_tokenizer(self, config: Config, record: Record) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        path = self._tokenizer(config)
        try:
            tokenizer = load_tokenizer(path)
        except FileError as error:
            raise RunError(str(error)) from None
        if tokenizer.vocab_size != config.model.vocab_size:
            raise RunError(
                f"{str(path)!r} is not this run's: it has {tokenizer.vocab_size} tokens, "
                f"and the model {config.model.vocab_size}"
            )
        if record.tokenizer_sha256 not in (None, fingerprint(tokenizer)):
            raise RunError(f"{str(path)!r} is not this run's: its tokens are others than the model was trained with")
        return tokenizer

    def _tokenizer(self, config: Config) -> Path:
        return self.sentencepiece if config.training.tokenizer == "sentencepiece" else self.tokenizer

    def write_record(self, record: Record) -> None:
        """Write the record."""
        write_atomic(self.record, json.dumps(dataclasses.asdict(record), indent=2).encode() + b"\n")

    def read_record(self) -> Record:
        """The record."""
        content = parse_json(read_run_file(self.record), f"{str(self.record)!r}")
        if isinstance(content, dict) and content.get("format") != FORMAT:
            raise RunError(f"{str(self.record)!r} has format {content.get('format')!r}, this version reads {FORMAT}")
        if isinstance(content, dict):
            content = {**dict.fromkeys(LATER), **content}
        return parse_dataclass(Record, content, f"{str(self.record)!r}")

    def write_metrics(self, metrics: list[Metrics]) -> None:
        """Write every evaluation, a line each."""
        write_atomic(self.metrics, format_json_lines(metrics))

    def read_metrics(self, record: Record) -> list[Metrics]:
        """Every evaluation, in order, up to the step that the run's record ends at."""
        if record.status == "imported":  # it was trained elsewhere
            return []
        metrics = read_json_lines(self.metrics, Metrics)
        if record.status == "finished" and metrics[-1].step < record.step:  # stopped early, it has none of its end
            last = f"it ends at step {metrics[-1].step:,}, the run at {record.step:,}"
            raise RunError(f"{str(self.metrics)!r} is cut short: {last}")
        return metrics

    def read_snapshots(self) -> list[Snapshot]:
        """What the model wrote on the way, in order; nothing if it kept none."""
        return read_json_lines(self.snapshots, Snapshot) if self.snapshots.exists() else []

    def write_snapshots(self, snapshots: list[Snapshot]) -> None:
        """Write what the model wrote on the way: a line each, and for people under headings."""
        write_atomic(self.snapshots, format_json_lines(snapshots))
        texts = [
            f"step {s.step:,}, validation loss {s.validation_loss:.4f}\n{escape_control_characters(s.text)}\n\n"
            for s in snapshots
        ]
        write_atomic(self.samples, "".join(texts).encode("utf-8", "backslashreplace"))

    def save_weights(self, weights: Mapping[str, torch.Tensor], best_so_far: bool) -> None:
        """Write the last weights; those they replace are kept as the best ones if they are."""
        if not best_so_far and not self.best.exists() and self.model.exists():
            write_atomic(self.best, self.model.read_bytes())
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}
        write_atomic(self.model, safetensors.torch.save(tensors))
        if best_so_far:
            with explain_os_errors("remove", self.best):
                self.best.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a process that was killed while it wrote has left behind. Raises FileError."""
        for file in self.path.glob(".*.tmp"):
            with explain_os_errors("remove", file):
                file.unlink(missing_ok=True)

    def load_weights(self, model: nn.Module, which: Weights = "last") -> None:
        """Load the last or the best weights into a model of the right shape, meta tensors included."""
        path = self.best if which == "best" and self.best.exists() else self.model
        weights = read_weights(path, model.state_dict())
        model.load_state_dict(weights, assign=True)


def read_weights(path: Path, like: Mapping[str, torch.Tensor], and_others: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, which must have exactly these names, shapes and types, and be finite.

    It may have others too, if so it is said; they are left alone.
    """
    if not path.is_file():
        raise RunError(f"{str(path)!r} is missing: the run has no weights, or none yet")
    with open_safetensors(path, RunError) as file:
        names = set(file.keys())
        if stray := sorted(like.keys() - names if and_others else names ^ like.keys()):
            raise RunError(f"{str(path)!r} does not fit config.toml: {stray[0]} is in only one of the two")
        for name, tensor in like.items():
            part, kind, shape = file.get_slice(name), STORED[tensor.dtype], list(tensor.shape)
            if part.get_dtype() != kind or list(part.get_shape()) != shape:
                found = f"{part.get_dtype()} of shape {list(part.get_shape())}, not {kind} of {shape}"
                raise RunError(f"{str(path)!r} does not fit config.toml: {name} is {found}")
        weights = {name: file.get_tensor(name) for name in like}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise RunError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")
    return weights


def find_newest(runs: Path = Path("runs")) -> Path:
    """The run begun or ended last among those in `runs` that have weights. Raises RunError if there is none."""
    with explain_os_errors("look for runs in", runs):
        found = [path for path in runs.glob("*/run.json") if path.with_name("model.safetensors").is_file()]
        if not found:
            raise RunError(f"there is no run in '{runs}' yet: name a run's folder, or make one with: minigpt train")
        return max(found, key=lambda path: (path.stat().st_mtime, path)).parent

"""What a run's JSON files hold: an evaluation, a snapshot, and how the run was trained."""

import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minigpt.errors import RunError
from minigpt.system.json_files import parse_dataclass, parse_json, read_run_file
from minigpt.version import __version__

FORMAT = 5
Status = Literal["unfinished", "finished", "interrupted", "diverged", "imported"]


@dataclass(frozen=True)
class Metrics:
    """One evaluation, one line of metrics.jsonl.

    Attributes:
        step: training steps done before the evaluation.
        train_loss: estimate on the training split, in nats per token.
        validation_loss: estimate on the validation split, in nats per token.
        learning_rate: AdamW's learning rate in the last step before the evaluation.
        seconds: time spent on training steps, without evaluations.
        characters: characters of all training batches so far.
    """

    step: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float
    characters: int


def find_best(metrics: Sequence[Metrics]) -> Metrics | None:
    """Return the evaluation with the lowest validation loss, the first of equals; None if there is none."""
    return min(metrics, key=lambda each: each.validation_loss, default=None)


@dataclass(frozen=True)
class Snapshot:
    """A text that the model wrote at an evaluation, one line of snapshots.jsonl."""

    step: int
    validation_loss: float
    text: str


@dataclass(frozen=True)
class RunInfo:
    """What run.json holds.

    Attributes:
        status: how the training ended; "unfinished" while it runs.
        started: date and time of the start, ISO 8601, UTC.
        data_source: where the text is from, as messages name it.
        data_characters: characters of the whole text.
        data_sha256: SHA-256 of the text, or of the index of prepared data.
        parameters: number of parameters of the model.
        device: the device that trained it, such as "cpu".
        threads: CPU threads of the training.
        minigpt_version: version of this package; likewise torch_version and python_version.
        platform: operating system and processor family.
        format: version of the run's files.
        data_paths: files or folder of the text, as the user named them; None for the downloaded Tiny Shakespeare.
        data_bytes: size of these files, or of the index of prepared data, in bytes; None for a pipe.
        step: training steps done.
        validation_loss: exact loss of the last weights in nats per token, or None before it is measured.
        training_seconds: time spent on training steps.
        evaluation_seconds: time spent on evaluations.
        tokenizer_sha256: fingerprint of the tokenizer.
        bits_per_byte: exact loss in bits, divided by the UTF-8 bytes of the text.
        bits_per_character: exact loss in bits, divided by the characters of the text.
        predictions: number of predictions whose mean is the exact loss.
        possible_predictions: number of predictions that the validation split allows.
        data_position: windows drawn from the training split.
        base: the run that this one was fine-tuned from.
        instructions: True for a run that was trained on instructions and answers, not on a text.
        exchanges: the most questions in one training conversation; only for instructions.
        trained_parameters: number of parameters that were trained, if not all.
        generation: how the run generates text, such as "numba".
        kernels: names of the kernels of the training, separated by commas; empty for none.
        documents: True if the data are documents, with an end-of-text token between them.
        launch: name of the torchrun job that started the run.
    """

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
    data_paths: list[str] | None = None
    data_bytes: int | None = None
    step: int = 0
    validation_loss: float | None = None
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    tokenizer_sha256: str | None = None
    bits_per_byte: float | None = None
    bits_per_character: float | None = None
    predictions: int | None = None
    possible_predictions: int | None = None
    data_position: int | None = None
    base: str | None = None
    instructions: bool | None = None
    exchanges: int | None = None
    trained_parameters: int | None = None
    generation: str | None = None
    kernels: str | None = None
    documents: bool | None = None
    launch: str | None = None


@dataclass(frozen=True)
class FinetuningInfo:
    """What finetuning.json holds: how a run was fine-tuned, beside the settings in config.toml.

    Attributes:
        kind: what was learned: a text, instructions (sft) or preferences (dpo).
        method: which weights trained, such as "lora".
        base_sha256: SHA-256 of the base's weights.
        data: the file of examples or pairs, as the user named it; None for a text, and for built-in tasks.
        data_bytes: size of that file in bytes; None for a pipe.
        tasks: names of the built-in tasks that were learned, separated by commas.
        test_only: names of the tasks that were tested only, separated by commas.
        replays: True if the training mixes in the base's own text.
        targets: names of the layers with adapters, separated by commas; None for the default.
        rank: of the adapters; likewise alpha, dropout, rslora and dora.
        beta: how close DPO keeps the model to its base.
        new_characters: "add" or "replace": what became of a text's characters outside the base's vocabulary.
    """

    kind: Literal["text", "sft", "dpo"]
    method: Literal["full", "lora", "qlora"]
    base_sha256: str
    data: str | None = None
    data_bytes: int | None = None
    tasks: str | None = None
    test_only: str | None = None
    replays: bool = False
    targets: str | None = None
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    beta: float | None = None
    new_characters: str | None = None


def read_run_info(path: Path) -> RunInfo:
    """Read run.json. Raise RunError if it is missing, damaged, or of another version of the run's files."""
    content = parse_json(read_run_file(path), f"{str(path)!r}")
    if isinstance(content, dict) and content.get("format") != FORMAT:
        raise RunError(
            f"{str(path)!r} has format {content.get('format')!r}, but this version reads {FORMAT}: train the run again"
        )
    return parse_dataclass(RunInfo, content, f"{str(path)!r}")


def describe_environment() -> dict[str, Any]:
    """Return the fields of a new run.json that say when and where the run began."""
    import torch  # here, so that a list of runs is printed at once

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "minigpt_version": __version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }

"""What a run's files say about it, all but the values of its weights. This module does not import PyTorch."""

import math
from dataclasses import dataclass
from pathlib import Path

from minigpt.config import Config
from minigpt.errors import RunError, UnknownCharacterError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Metrics, RunInfo, find_best
from minigpt.system.safetensors_files import read_shapes
from minigpt.tokenizers.base import Tokenizer, find_end_of_text

PARTS = {
    "token_embedding_table": "token embedding",
    "position_embedding_table": "position embedding",
    "sa": "self-attention",
    "attention": "self-attention",
    "token_shift_weight": "token shift",
    "ffwd": "feed-forward",
    "ln1": "layer norms",
    "ln2": "layer norms",
    "ln_f": "layer norms",
    "lm_head": "language-model head",
}
NOT_LEARNED = {"tril", "codes", "scale", "absmax", "absmax_largest", "absmax_mean"}  # masks, and quantized matrices


@dataclass(frozen=True)
class RunOverview:
    """A run without its model.

    Attributes:
        path: its directory.
        config: the configuration, with `.model` and `.training`.
        tokenizer: converts text to token ids and back.
        info: the content of run.json: data, versions, exact validation loss, times.
        metrics: the evaluations, in order.
    """

    path: Path
    config: Config
    tokenizer: Tokenizer
    info: RunInfo
    metrics: list[Metrics]

    @classmethod
    def read(cls, path: Path) -> "RunOverview":
        """Read a run's directory. Every file is validated, except for the values of the weights.

        Raises:
            RunError: a file is missing, damaged or from another version; the message names it.
        """
        directory = RunDirectory(path)
        directory.require_exists()
        directory.require_no_links_outside()
        config = directory.read_config()
        info = directory.read_info()
        tokenizer = directory.read_tokenizer(config, info)
        if info.status == "unfinished" and not directory.model.exists():
            raise RunError(f"{str(path)!r} has no weights yet: its training has only begun, or ended before it had any")
        return cls(path, config, tokenizer, info, directory.read_metrics(info))

    @property
    def best(self) -> Metrics | None:
        """The first evaluation with the lowest validation loss; None before the first evaluation."""
        return find_best(self.metrics)


def count_parameters_by_part(path: Path) -> dict[str, int]:
    """Count the parameters in the model file of a run's directory, by the kind of layer and over all blocks.

    Raises:
        RunError: the file is missing or damaged.
    """
    counts = dict.fromkeys(PARTS.values(), 0)
    for name, shape in read_shapes(RunDirectory(path).model).items():
        words = name.split(".")
        if words[-1] not in NOT_LEARNED:
            part = next((PARTS[word] for word in words if word in PARTS), name)
            counts[part] = counts.get(part, 0) + math.prod(shape)
    return {part: count for part, count in counts.items() if count}


def find_start_ids(tokenizer: Tokenizer, info: RunInfo) -> list[int]:
    """Return the tokens from which a run generates without a prompt.

    They are the end of a document if the run was trained on documents, else a newline, else token 0.
    """
    end = find_end_of_text(tokenizer) if info.documents else None
    if end is not None:
        return [end]
    try:
        return tokenizer.encode("\n")
    except UnknownCharacterError:
        return [0]

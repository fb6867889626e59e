"""How well a run predicts a text, measured in steps: other work can be done between them."""

import dataclasses
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from minigpt.errors import DataError
from minigpt.model import TrainedModel
from minigpt.model.loss import TOKENS_PER_BATCH, compute_token_losses
from minigpt.model.loss_units import nats_to_bits
from minigpt.model.ngram import NGramModel
from minigpt.runs.exact_loss import measure_token_lengths, require_two_tokens
from minigpt.runs.run import Run
from minigpt.tokenizers.char import UNKNOWN, CharTokenizer


@dataclasses.dataclass(frozen=True)
class TextLoss:
    """The loss of a part of a text, or of the whole.

    Attributes:
        nats: the sum over all predictions.
        predictions: their number.
        bytes: the UTF-8 bytes of the predicted tokens; None where a token stands for a character that the tokenizer
            does not know, so that the text itself was not predicted.
    """

    nats: float = 0.0
    predictions: int = 0
    bytes: int | None = 0

    def __add__(self, other: "TextLoss") -> "TextLoss":
        size = None if self.bytes is None or other.bytes is None else self.bytes + other.bytes
        return TextLoss(self.nats + other.nats, self.predictions + other.predictions, size)

    @property
    def loss(self) -> float:
        """The mean in nats per token."""
        return self.nats / self.predictions

    @property
    def bits_per_byte(self) -> float | None:
        """The bits of all predictions divided by the bytes, which compares runs of different tokenizers."""
        return nats_to_bits(self.nats) / self.bytes if self.bytes else None


def stream_text_losses(run: Run, text: str) -> Iterator[TextLoss]:
    """Measure a text in the windows of `ExactLoss`, and yield the losses of one part after another.

    An n-gram model predicts each token from the order - 1 tokens before it.

    Args:
        run: the run.
        text: the text.

    Yields:
        The loss of each part. Their sum is the loss of the text.

    Raises:
        DataError: the text has fewer than two tokens.
        UnknownCharacterError: a character is not in the vocabulary.
    """
    ids = torch.tensor(run.tokenizer.encode(text))
    require_two_tokens(ids)
    lengths = measure_token_lengths(run.tokenizer)[:, 0]  # (V,)
    unknown = run.tokenizer.stoi.get(UNKNOWN) if isinstance(run.tokenizer, CharTokenizer) else None
    T = run.config.model.block_size
    part = max(1, TOKENS_PER_BATCH // T) * T  # a part ends where a window ends
    for start in range(0, len(ids) - 1, part):
        losses, y = _compute_losses(run.model, ids, start, start + part), ids[start + 1 : start + part + 1]
        is_unknown = unknown is not None and bool((y == unknown).any())
        yield TextLoss(losses.double().sum().item(), len(y), None if is_unknown else int(lengths[y].sum().item()))


def _compute_losses(model: nn.Module, ids: Tensor, start: int, end: int) -> Tensor:
    """Return the losses of the tokens start + 1 to end of ids (N,)."""
    if isinstance(model, NGramModel):
        first = max(0, start - model.config.block_size)  # it sees too few tokens to be measured in windows
        return model.token_losses(ids[first : end + 1])[start - first :]
    return compute_token_losses(cast(TrainedModel, model), ids[start : end + 1])


def find_common_text(runs: dict[str, Run], max_characters: int) -> str:
    """Return the beginning of the validation text of runs that were trained on the same text.

    Args:
        runs: the runs by their names, at least one.
        max_characters: the longest text to return.

    Raises:
        DataError: the texts of two runs differ, or a run's text is not known.
        FileError: the text cannot be read.
    """
    (first, run), *others = runs.items()
    for name, other in others:
        if _identify_text(other) != _identify_text(run):
            raise DataError(f"{first!r} and {name!r} have different validation texts: give a text")
    ids = run.dataset().val[: max_characters + 1]
    special = set(run.tokenizer.special_tokens.values())
    return run.tokenizer.decode([i for i in ids.tolist() if i not in special])[:max_characters]


def _identify_text(run: Run) -> tuple[str, float]:
    """Return what is equal for runs with the same validation text. The tokens may differ."""
    return run.info.data_sha256, run.config.training.train_fraction

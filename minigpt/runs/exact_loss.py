"""The exact loss of a text, in units in which models with different tokenizers can be compared."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.errors import DataError
from minigpt.model import TrainedModel
from minigpt.model.loss import MAX_EVALUATED_TOKENS, TokenIds, iterate_losses
from minigpt.model.loss_units import nats_to_bits
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.char import UNKNOWN, CharTokenizer


@dataclass(frozen=True)
class ExactLoss:
    """An exact loss and what it was measured on.

    Attributes:
        loss: the mean over all predictions, in nats per token.
        bits_per_byte: the bits of all predictions divided by the UTF-8 bytes of the predicted text. Special tokens
            cost bits and have no bytes. None where no text was predicted, and where U+FFFD stands for other
            characters: what was predicted is not the text.
        bits_per_character: the same, divided by the characters.
        split: which part of the data was measured, for messages.
        characters: of the measured text.
        source: where the text is from, for messages.
        predictions: how many predictions were made.
        possible_predictions: how many the text allows; more than `predictions` where only a part was measured.
    """

    loss: float
    bits_per_byte: float | None
    bits_per_character: float | None
    split: str
    characters: int
    source: str
    predictions: int
    possible_predictions: int

    @classmethod
    def measure(
        cls,
        model: TrainedModel,
        ids: TokenIds,
        tokenizer: Tokenizer,
        split: str,
        source: str,
        max_predictions: int | None = MAX_EVALUATED_TOKENS,
        is_altered: bool = False,
        threads: int = 1,
        on_progress: Callable[["ExactLoss"], None] = lambda exact: None,
    ) -> "ExactLoss":
        """Measure a model on a text; every token but the first is predicted once.

        Args:
            model: the model.
            ids: the token ids of the text.
            tokenizer: the tokenizer that made them.
            split: which part of the data this is.
            source: where the text is from.
            max_predictions: limit on predictions; a longer text is measured in evenly spread windows.
            is_altered: True if U+FFFD was written for characters of the text before it was encoded.
            threads: as for `iterate_losses`.
            on_progress: called after each batch with the exact loss so far, of windows spread evenly over the text.

        Raises:
            DataError: there are fewer than two tokens.
        """
        require_two_tokens(ids)
        lengths = measure_token_lengths(tokenizer)
        unknown = tokenizer.stoi.get(UNKNOWN) if isinstance(tokenizer, CharTokenizer) else None
        first = int(lengths[int(ids[:1][0]), 1])
        nats, count, size, characters = 0.0, 0, 0, 0
        for y, losses in iterate_losses(model, ids, max_predictions, threads):
            y_size, y_characters = lengths[y].sum((0, 1)).tolist()
            nats, count = nats + losses.double().sum().item(), count + y.numel()
            size, characters = size + y_size, characters + y_characters
            is_altered = is_altered or (unknown is not None and bool((y == unknown).any()))
            exact = cls(
                loss=nats / count,
                bits_per_byte=nats_to_bits(nats) / size if size and not is_altered else None,
                bits_per_character=nats_to_bits(nats) / characters if characters and not is_altered else None,
                split=split,
                characters=characters + first,
                source=source,
                predictions=count,
                possible_predictions=len(ids) - 1,
            )
            on_progress(exact)
        return exact


def measure_token_lengths(tokenizer: Tokenizer) -> Tensor:
    """Return the bytes of each token, and the characters that begin in it: (V, 2), int64; zeros for special tokens."""
    special = set(tokenizer.special_tokens.values())
    tokens = [b"" if i in special else tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
    return torch.tensor([(len(token), sum(byte & 0xC0 != 0x80 for byte in token)) for token in tokens])


def require_two_tokens(ids: TokenIds) -> None:
    """Raise DataError if there are too few tokens to predict one from another."""
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} tokens has nothing to predict: it needs at least 2")

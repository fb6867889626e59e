"""The transformer and the n-gram model side by side: what does each predict better?

Both learn from the same training text. Its first part is held out, to fit the weight of their blend. The validation
text is only measured. The n-gram model sees the order - 1 characters before each prediction; the transformer sees the
characters before it in its window, as in the exact loss.
"""

import itertools
import unicodedata
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.errors import DataError
from minigpt.model import LanguageModel
from minigpt.model.loss import compute_token_losses
from minigpt.model.ngram import NGramModel
from minigpt.studies.ladder.blend import blend_losses, find_best_weight

ORDERS = range(3, 9)
HELD_OUT = 50  # a fiftieth of the training text is held out
CHARACTER_KINDS = (
    "capital after a line break",
    "first letter of a word",
    "later letter",
    "space",
    "line break",
    "punctuation",
)
OTHER = "anything else"


@dataclass(frozen=True)
class Blend:
    """A transformer, an n-gram model and their blend.

    Attributes:
        seed: the transformer's.
        order: the n-gram model's.
        weight: the n-gram model's weight in the blend.
        held_out: the number of characters that the weight was fitted on.
        transformer: exact validation loss in nats.
        ngram: exact validation loss in nats.
        blended: exact validation loss in nats.
    """

    seed: int
    order: int
    weight: float
    held_out: int
    transformer: float
    ngram: float
    blended: float


@dataclass(frozen=True)
class Comparison:
    """The mean validation losses of the three models on a part of the predictions.

    Attributes:
        seed: the transformer's.
        by: how the predictions are divided: "position" in the window, or "kind" of character.
        part: the name of this part.
        share: its share of all predictions.
        transformer: mean loss in nats.
        ngram: mean loss in nats.
        blended: mean loss in nats.
    """

    seed: int
    by: str
    part: str
    share: float
    transformer: float
    ngram: float
    blended: float


def hold_out(train: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Hold out the first fiftieth of the training ids, at least one window.

    It is the first part because the end of the training text is most similar to the validation text.

    Args:
        train: token ids (N,).
        block_size: the size of a window.

    Returns:
        The ids to learn from, and the held-out ids.

    Raises:
        DataError: too few ids are left to learn from.
    """
    size = max(len(train) // HELD_OUT, block_size + 1)
    if len(train) - size < block_size + 1:
        raise DataError(
            f"the training split has {len(train):,} tokens: a ladder with block_size {block_size:,} needs at least "
            f"{2 * (block_size + 1):,}; use a longer text or a smaller block_size"
        )
    return train[size:], train[:size]


def fit_best_ngram(ids: Tensor, held_out: Tensor, vocab_size: int) -> NGramModel:
    """Fit n-gram models of several orders to `ids` (N,), and return the best one on the held-out ids (M,)."""
    models = [NGramModel.fit(ids, vocab_size, order) for order in ORDERS]
    return min(models, key=lambda model: model.token_losses(held_out).mean().item())


def compare_models(
    transformer: LanguageModel, ngram: NGramModel, held_out: Tensor, val: Tensor, characters: list[str], seed: int
) -> tuple[Blend, list[Comparison]]:
    """Blend two models, and compare all three by position in the window and by kind of character.

    Args:
        transformer: the trained transformer.
        ngram: the n-gram model.
        held_out: token ids that neither model has seen, to fit the weight.
        val: the validation ids (M,).
        characters: the validation text (M,), token by token.
        seed: the transformer's.
    """
    weight = find_best_weight(compute_token_losses(transformer, held_out).double(), ngram.token_losses(held_out))
    ours, theirs = compute_token_losses(transformer, val).double(), ngram.token_losses(val)  # (M - 1,) each
    both = blend_losses(ours, theirs, weight)
    losses = {"transformer": ours, "ngram": theirs, "blended": both}
    means = {name: loss.mean().item() for name, loss in losses.items()}
    order = ngram.config.order
    blend = Blend(seed=seed, order=order, weight=weight, held_out=len(held_out), **means)
    positions = torch.arange(len(ours)) % transformer.config.block_size  # characters of context, minus one
    kinds = [_classify_next_character(before, character) for before, character in itertools.pairwise(characters)]
    parts = [("position", str(t + 1), positions == t) for t in range(int(positions.max()) + 1)]
    parts += [("kind", name, torch.tensor([k == name for k in kinds])) for name in (*CHARACTER_KINDS, OTHER)]
    rows = []
    for by, part, mask in parts:
        if mask.any():
            part_losses = {name: loss[mask].mean().item() for name, loss in losses.items()}
            rows.append(Comparison(seed=seed, by=by, part=part, share=mask.double().mean().item(), **part_losses))
    return blend, rows


def _classify_next_character(before: str, character: str) -> str:
    """Return the kind of a character that follows another: one of CHARACTER_KINDS, or OTHER."""
    if character == "\n":
        return "line break"
    if character.isspace():
        return "space"
    if character.isalpha():
        if before == "\n" and character.isupper():
            return "capital after a line break"
        return "later letter" if before.isalpha() or before in "'’" else "first letter of a word"
    return "punctuation" if unicodedata.category(character).startswith("P") else OTHER

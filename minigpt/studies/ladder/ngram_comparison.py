"""The transformer and the n-gram model side by side: what each gets right that the other doesn't.

Both are given the same training text, short of its first part, on which the weight of their blend is
fitted; validation is only measured. The n-gram model sees the order - 1 characters before each
prediction; the transformer those before it in its window, as in the exact loss.
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
HELD_OUT = 50  # the part of the training text that weighs the blend: one in so many
KINDS = ("capital after a line break", "first letter of a word", "later letter", "space", "line break", "punctuation")
OTHER = "anything else"


@dataclass(frozen=True)
class Blend:
    """A transformer, an n-gram model and their mixture, with exact validation losses in nats."""

    seed: int
    order: int
    weight: float
    held_out: int
    transformer: float
    ngram: float
    blended: float


@dataclass(frozen=True)
class Comparison:
    """The mean validation losses of the three on a part of the predictions, `share` of them all."""

    seed: int
    by: str
    part: str
    share: float
    transformer: float
    ngram: float
    blended: float


def hold_out(train: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """The training ids in two: those to learn from, and the first fiftieth, at least one window, to weigh on.

    The first, because the end of the training text leads into the validation text: without it a model would
    lack more than a fiftieth of what helps there. Raises DataError if too few are left to learn from.
    """
    kept = max(len(train) // HELD_OUT, block_size + 1)
    if len(train) - kept < block_size + 1:
        raise DataError(
            f"the training split has {len(train):,} tokens: a ladder with block_size {block_size:,} needs at least "
            f"{2 * (block_size + 1):,}; use a longer text or a smaller block_size"
        )
    return train[kept:], train[:kept]


def fit_best_ngram(ids: Tensor, held_out: Tensor, vocab_size: int) -> NGramModel:
    """The n-gram model of `ids` whose order suits the text kept out best."""
    models = [NGramModel.fit(ids, vocab_size, order) for order in ORDERS]
    return min(models, key=lambda model: model.token_losses(held_out).mean().item())


def compare(
    transformer: LanguageModel, ngram: NGramModel, held_out: Tensor, val: Tensor, characters: list[str], seed: int
) -> tuple[Blend, list[Comparison]]:
    """Blend the two, and compare all three by position in the window and by the kind of character predicted.

    `characters` (M,) are the tokens of the validation ids `val` (M,) as text.
    """
    weight = find_best_weight(compute_token_losses(transformer, held_out).double(), ngram.token_losses(held_out))
    ours, theirs = compute_token_losses(transformer, val).double(), ngram.token_losses(val)  # (M - 1,) each
    both = blend_losses(ours, theirs, weight)
    losses = {"transformer": ours, "ngram": theirs, "blended": both}
    means = {name: loss.mean().item() for name, loss in losses.items()}
    order = ngram.config.order
    blend = Blend(seed=seed, order=order, weight=weight, held_out=len(held_out), **means)
    positions = torch.arange(len(ours)) % transformer.config.block_size  # how many characters of context less one
    kinds = [kind(before, character) for before, character in itertools.pairwise(characters)]
    parts = [("position", str(t + 1), positions == t) for t in range(int(positions.max()) + 1)]
    parts += [("kind", name, torch.tensor([k == name for k in kinds])) for name in (*KINDS, OTHER)]
    rows = []
    for by, part, chosen in parts:
        if chosen.any():
            of_part = {name: loss[chosen].mean().item() for name, loss in losses.items()}
            rows.append(Comparison(seed=seed, by=by, part=part, share=chosen.double().mean().item(), **of_part))
    return blend, rows


def kind(before: str, character: str) -> str:
    """What kind of character this is, after the one before it: one of KINDS, or OTHER."""
    if character == "\n":
        return "line break"
    if character.isspace():
        return "space"
    if character.isalpha():
        if before == "\n" and character.isupper():
            return "capital after a line break"
        return "later letter" if before.isalpha() or before in "'’" else "first letter of a word"
    return "punctuation" if unicodedata.category(character).startswith("P") else OTHER

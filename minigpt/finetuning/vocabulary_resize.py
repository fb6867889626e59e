"""More tokens for a trained model: special ones, and characters that it has not met; what it knows stays as it is."""

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from minigpt.errors import DataError
from minigpt.model import TrainedModel
from minigpt.model.meta_init import build_empty
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer

ROWS = ("token_embedding_table.weight", "lm_head.weight", "lm_head.bias")  # that have one for each token
NEW = 0.02  # standard deviation of new rows, as weights begin


def grown(
    tokenizer: Tokenizer, special: Sequence[str], texts: Iterable[str] = ()
) -> tuple[Tokenizer, list[int | None]]:
    """A tokenizer that has those special tokens too and, of characters, those of the texts; each new id's old one.

    Raises DataError for a tokenizer that cannot grow.
    """
    missing = [name for name in special if name not in tokenizer.special_tokens]
    before = tokenizer.special_tokens
    if isinstance(tokenizer, CharTokenizer):
        unknown = tokenizer.unknown is not None  # it has a sign for them
        more = set() if unknown else set().union(*map(set, texts)) - tokenizer.stoi.keys()
        characters = [*tokenizer.stoi, *sorted(more)]
        known: list[int | None] = [tokenizer.stoi.get(character) for character in characters]
        larger = CharTokenizer(characters, [*before, *missing], tokenizer.unknown)
        return larger, known + [before.get(name) for name in larger.special_tokens]
    if isinstance(tokenizer, BPETokenizer):
        count = tokenizer.vocab_size
        ids = {token: i for i, token in tokenizer.vocab.items() if i not in before.values()}
        both = {**before, **{name: count + n for n, name in enumerate(missing)}}
        return BPETokenizer(tokenizer.merges, both, tokenizer.pattern, ids), [*range(count), *[None] * len(missing)]
    if missing:
        raise DataError("a SentencePiece model cannot be given special tokens: take a base of characters or BPE")
    return tokenizer, list(range(tokenizer.vocab_size))


def with_tokens(model: TrainedModel, old: Sequence[int | None], seed: int) -> TrainedModel:
    """A model whose n-th token is `model`'s token old[n], with the very same rows, or a new one where that is None."""
    if list(old) == list(range(model.config.vocab_size)):
        return model
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: chosen_rows(tensor, old, generator) if name in ROWS else tensor
        for name, tensor in model.state_dict().items()
    }
    larger = build_empty(dataclasses.replace(model.config, vocab_size=len(old)))
    larger.load_state_dict(weights, assign=True)
    return larger.train(model.training)


def chosen_rows(tensor: Tensor, old: Sequence[int | None], generator: torch.Generator) -> Tensor:
    """The rows of those ids; small random numbers, or for a bias zeros, where there is none."""
    rows = torch.zeros(len(old), *tensor.shape[1:], dtype=tensor.dtype)
    if tensor.dim() > 1:
        rows.normal_(std=NEW, generator=generator)
    kept = [n for n, i in enumerate(old) if i is not None]
    rows[kept] = tensor.cpu()[[i for i in old if i is not None]]
    return rows.to(tensor.device)

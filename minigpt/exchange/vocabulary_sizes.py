"""Bring a model and a tokenizer to the same number of tokens where the numbers differ for a known reason."""

import dataclasses
from collections.abc import Callable

from minigpt.errors import ExchangeError
from minigpt.finetuning.vocabulary_resize import TABLES
from minigpt.model.gpt import GPT
from minigpt.model.meta_init import build_empty_model
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer

_MULTIPLES = (8, 16, 32, 64, 128)  # programs round a vocabulary up to a multiple of one of these, for speed


def match_vocabulary_sizes(model: GPT, tokenizer: Tokenizer, say: Callable[[str], None]) -> tuple[GPT, Tokenizer]:
    """Return a model without rows that only pad its vocabulary, and a tokenizer without tokens that have no row.

    A model may have more rows than tokens because its vocabulary was rounded up: 50,304 for 50,257. A tokenizer may
    have got a padding token to which the model has no row. Any other difference stays.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        say: is called with a message about what is left out.
    """
    rows, tokens = model.config.vocab_size, tokenizer.vocab_size
    if isinstance(tokenizer, CharTokenizer) and rows == tokens + 1:  # the token <unk> of an export
        return cut_rows(model, tokens), tokenizer
    if rows > tokens and any(-(-tokens // multiple) * multiple == rows for multiple in _MULTIPLES):
        say(f"{rows - tokens:,} rows of the model, which pad its vocabulary to {rows:,}, are left out")
        return cut_rows(model, tokens), tokenizer
    if rows < tokens and isinstance(tokenizer, BPETokenizer):
        extra = [name for name, i in tokenizer.special_tokens.items() if i >= rows]
        extra += [token.text for token in tokenizer.added_tokens if token.id >= rows]
        if len(extra) == tokens - rows:
            say(f"{', '.join(extra)}: left out, because the model has no row for it")
            return model, _drop_tokens(tokenizer, rows)
    return model, tokenizer


def require_fitting_tokenizer(tokenizer: Tokenizer, vocab_size: int, where: str) -> None:
    """Raise ExchangeError, with the file, unless a tokenizer has as many tokens as its model."""
    if tokenizer.vocab_size != vocab_size:
        sizes = f"{tokenizer.vocab_size:,} tokens, and the model knows {vocab_size:,}"
        raise ExchangeError(f"the tokenizer in {where} does not fit: it has {sizes}")


def cut_rows(model: GPT, count: int) -> GPT:
    """Return a model with the first `count` tokens; the same model if it has no more."""
    if model.config.vocab_size == count:
        return model
    weights = model.state_dict()
    weights |= {name: weights[name][:count].clone() for name in TABLES if name in weights}
    smaller = build_empty_model(dataclasses.replace(model.config, vocab_size=count))
    assert isinstance(smaller, GPT)
    smaller.load_state_dict(weights, assign=True)
    return smaller.eval()


def _drop_tokens(tokenizer: BPETokenizer, count: int) -> BPETokenizer:
    """Return a tokenizer without the special and added tokens from id `count` on."""
    special = {name: i for name, i in tokenizer.special_tokens.items() if i < count}
    added = [token for token in tokenizer.added_tokens if token.id < count]
    return BPETokenizer(tokenizer.merges, special, tokenizer.pattern, tokenizer.ids, added)

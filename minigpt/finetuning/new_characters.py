"""Find the characters of a new text that the base's vocabulary lacks, and add or replace them."""

from typing import Literal, get_args

from minigpt.data.corpus import Corpus
from minigpt.data.prepared_data import PreparedData
from minigpt.errors import ConfigError, DataError
from minigpt.finetuning.vocabulary_resize import extend_tokenizer
from minigpt.runs.run import Run
from minigpt.system.advice import format_setting
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.char import UNKNOWN, CharTokenizer

NewCharacters = Literal["add", "replace"]
MAX_NAMED = 40  # characters that a message names


def find_new_characters(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the characters of a text that a tokenizer cannot encode, in order; none if it replaces them."""
    if not isinstance(tokenizer, CharTokenizer) or tokenizer.unknown is not None:
        return []
    return sorted(set(text) - tokenizer.stoi.keys())


def extend_vocabulary(
    base: Run, corpus: Corpus | PreparedData, choice: str | None
) -> tuple[Tokenizer, list[int | None]]:
    """Return a tokenizer that can encode a text, and what each of its tokens is in the base, None for a new one.

    Args:
        base: the run that is fine-tuned.
        corpus: the text.
        choice: "add": each new character becomes a token. "replace": all of them become one token, U+FFFD.

    Raises:
        DataError: there are new characters, and no choice.
        ConfigError: the choice is neither, or the base's model cannot grow.
    """
    if choice is not None and choice not in get_args(NewCharacters):
        raise ConfigError(f"new_characters must be one of {', '.join(get_args(NewCharacters))}, not {choice!r}")
    same: list[int | None] = [*range(base.tokenizer.vocab_size)]
    new = [] if isinstance(corpus, PreparedData) else find_new_characters(base.tokenizer, corpus.text)
    if not new:
        return base.tokenizer, same
    if choice is None:
        add, replace = (format_setting("new_characters", name) for name in ("add", "replace"))
        raise DataError(
            f"{corpus.source} has {count_characters(new)} that the base's vocabulary lacks: {name_characters(new)}; "
            f"{add} gives each a token, {replace} makes one token of all"
        )
    if base.config.model.architecture == "bigram" or base.config.model.quantization != "none":
        raise ConfigError("the vocabulary of a bigram or of a quantized run cannot grow: take another base")
    assert isinstance(base.tokenizer, CharTokenizer)
    tokenizer, old_ids = extend_tokenizer(base.tokenizer, (), new if choice == "add" else [UNKNOWN])
    if choice == "replace":
        assert isinstance(tokenizer, CharTokenizer)
        tokenizer = CharTokenizer(tokenizer.stoi, [*tokenizer.special_tokens], UNKNOWN)
    return tokenizer, old_ids


def count_characters(characters: list[str]) -> str:
    """Return the number of characters in words."""
    return f"{len(characters):,} character{'s' if len(characters) > 1 else ''}"


def name_characters(characters: list[str]) -> str:
    """Return characters as a list for a message, the first forty of them."""
    rest = len(characters) - MAX_NAMED
    return " ".join(map(repr, characters[:MAX_NAMED])) + (f" and {rest:,} more" if rest > 0 else "")

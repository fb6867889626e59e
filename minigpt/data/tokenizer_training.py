"""Tokenizers for a corpus that is larger than memory: all characters are counted, tokens are learned from a sample."""

import zlib
from collections.abc import Iterable

import numpy as np

from minigpt.config import TokenizerKind
from minigpt.data.document_split import Passage
from minigpt.errors import DataError
from minigpt.tokenizers.base import END_OF_TEXT, Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import UNKNOWN, CharTokenizer
from minigpt.tokenizers.code_points import CODE_POINTS, to_code_points
from minigpt.tokenizers.loading import load_gpt2_tokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

_SAMPLE_CHARACTERS = 2**24
_COUNT_AT_A_TIME = 2**20  # characters


def train_on_stream(
    kind: TokenizerKind, vocab_size: int, passages: Iterable[Passage], min_count: int | None
) -> Tokenizer:
    """Train a tokenizer with an end-of-text token.

    Args:
        kind: which tokenizer; "gpt2" fetches GPT-2's instead of training one.
        vocab_size: the number of tokens, for "bpe" and "sentencepiece".
        passages: the corpus; "bpe" and "sentencepiece" learn from the training passages only.
        min_count: as in `build_char_tokenizer`.

    Raises:
        ConfigError: the size is impossible.
        DataError: there is too little text.
    """
    if kind == "gpt2":
        return load_gpt2_tokenizer()
    if kind == "char":
        return build_char_tokenizer(passages, min_count)
    text = (END_OF_TEXT if kind == "bpe" else "\n").join(sample_texts(passages))
    if not text:
        raise DataError("there is no document to learn a vocabulary from: name more files")
    if kind == "bpe":
        return BPETokenizer.train(text, vocab_size, [END_OF_TEXT])
    return SentencePieceTokenizer.train(text, vocab_size, end_of_text=True)


def build_char_tokenizer(passages: Iterable[Passage], min_count: int | None = None) -> CharTokenizer:
    """Build a tokenizer of the characters of all passages.

    Args:
        passages: the corpus.
        min_count: how often a character must occur to be in the vocabulary; U+FFFD stands for all others. None keeps
            every character.

    Raises:
        DataError: fewer than two characters are left.
    """
    counts = np.zeros(CODE_POINTS, np.int64)
    held: list[str] = []
    held_characters = 0
    for passage in passages:
        held.append(passage.text)
        held_characters += len(passage.text)
        if held_characters >= _COUNT_AT_A_TIME:
            counts += np.bincount(to_code_points("".join(held)), minlength=CODE_POINTS)
            held, held_characters = [], 0
    counts += np.bincount(to_code_points("".join(held)), minlength=CODE_POINTS)
    kept = {chr(i) for i in np.flatnonzero(counts >= (min_count or 1))}
    if len(kept) < 2:
        few = "fewer than two different characters"
        often = f" that occur {min_count:,} times: lower --min-count" if min_count else ": name more files"
        raise DataError(f"the documents have {few}{often}")
    unknown = None if min_count is None else UNKNOWN
    return CharTokenizer(sorted(kept | {UNKNOWN} if unknown else kept), [END_OF_TEXT], unknown)


def sample_texts(passages: Iterable[Passage], characters: int = _SAMPLE_CHARACTERS) -> list[str]:
    """Choose training passages in one pass, with bounded memory.

    Each passage gets a number: the CRC-32 of its text and its place. A passage is kept if its number is below a
    threshold, which is halved whenever the kept passages are too long. So the same corpus gives the same sample.

    Args:
        passages: the corpus; validation passages are left out.
        characters: the largest number of characters to keep.

    Returns:
        The texts, in order.
    """
    kept: list[tuple[int, str]] = []
    threshold, count = 2**32, 0
    for n, passage in enumerate(passages):
        number = zlib.crc32(passage.text.encode(), n)  # with the place, copies of a text get different numbers
        if passage.split == "val" or number >= threshold:
            continue
        kept.append((number, passage.text))
        count += len(passage.text)
        while count > characters and len(kept) > 1:
            threshold //= 2
            kept = [(number, text) for number, text in kept if number < threshold]
            count = sum(len(text) for _, text in kept)
    return [text for _, text in kept]

"""Texts as arrays of token ids: two or four bytes for a token, where a list of Python's numbers takes eight or more."""

from collections.abc import Callable, Sequence

import numpy as np

from minigpt.errors import UnknownCharacterError
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.code_points import CODE_POINTS, to_code_points

EncodeToArrays = Callable[[Sequence[str]], list[np.ndarray]]


def build_array_encoder(tokenizer: Tokenizer) -> EncodeToArrays:
    """Return a function that converts texts to arrays of the ids that `tokenizer.encode` returns.

    Args:
        tokenizer: any tokenizer. Of a BPE tokenizer, also short texts are encoded by a library from then on.
    """
    if isinstance(tokenizer, CharTokenizer):
        return _build_char_encoder(tokenizer)
    if isinstance(tokenizer, BPETokenizer):
        tokenizer.library_threshold = 0
        return tokenizer.encode_to_arrays
    return lambda texts: [np.array(tokenizer.encode(text), np.uint32) for text in texts]


def releases_lock(tokenizer: Tokenizer) -> bool:
    """Return True if several threads can encode at the same time, because a library does without Python's lock."""
    return isinstance(tokenizer, BPETokenizer) and tokenizer.library_encoder.library is not None


def _build_char_encoder(tokenizer: CharTokenizer) -> EncodeToArrays:
    """Return a function that looks ids up in a table of all code points."""
    missing = -1 if tokenizer.unknown is None else tokenizer.stoi[tokenizer.unknown]
    table = np.full(CODE_POINTS, missing, np.int32)
    for character, i in tokenizer.stoi.items():
        table[ord(character)] = i

    def encode(text: str) -> np.ndarray:
        ids = table[to_code_points(text)]
        if missing < 0 and ids.size and ids.min() < 0:
            position = int(ids.argmin())
            raise UnknownCharacterError(text[position], position, tokenizer.vocab_size)
        return ids

    return lambda texts: [encode(text) for text in texts]

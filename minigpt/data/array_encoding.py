"""Texts as arrays of token ids: two or four bytes for a token, where a list of Python's numbers takes eight or more."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from minigpt.data.shards import choose_id_type
from minigpt.errors import UnknownCharacterError
from minigpt.system.cpus import count_cpus
from minigpt.system.thread_map import map_in_threads
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.bpe_fast import split_at_lines
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.code_points import CODE_POINTS, to_code_points

EncodeToArrays = Callable[[Sequence[str]], list[np.ndarray]]
_CHARACTERS_AT_A_TIME = 2**20


def encode_text(tokenizer: Tokenizer, text: str, characters_at_a_time: int = _CHARACTERS_AT_A_TIME) -> np.ndarray:
    """Convert a text, also a large one, to the ids that `tokenizer.encode` returns.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        characters_at_a_time: how much of the text is encoded at a time, if the tokenizer allows for cutting it.

    Returns:
        The ids (N,), of the type that `choose_id_type` chooses.

    Raises:
        DataError: the tokenizer cannot encode the text.
    """
    encode, dtype = build_array_encoder(tokenizer), choose_id_type(tokenizer.vocab_size)
    threads = count_cpus() if len(text) > characters_at_a_time and set_up_library(tokenizer) else 1
    parts = _split_text(tokenizer, text, characters_at_a_time)
    try:
        arrays = [*map_in_threads(lambda part: encode([part])[0].astype(dtype), parts, threads)]
    except UnknownCharacterError as error:  # its position is that in a part
        position = text.index(error.character)
        raise UnknownCharacterError(error.character, position, tokenizer.vocab_size) from None
    return np.concatenate([np.empty(0, dtype), *arrays])


def _split_text(tokenizer: Tokenizer, text: str, size: int) -> Iterator[str]:
    """Split a text into parts whose ids are the ids of the whole text."""
    if isinstance(tokenizer, CharTokenizer):
        return (text[start : start + size] for start in range(0, len(text), size))
    if isinstance(tokenizer, BPETokenizer) and not tokenizer.added_tokens:
        return split_at_lines(text, size)
    return iter([text])


def build_array_encoder(tokenizer: Tokenizer) -> EncodeToArrays:
    """Return a function that converts texts to arrays of the ids that `tokenizer.encode` returns."""
    if isinstance(tokenizer, CharTokenizer):
        return _build_char_encoder(tokenizer)
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.encode_to_arrays
    return lambda texts: [np.array(tokenizer.encode(text), np.uint32) for text in texts]


def set_up_library(tokenizer: Tokenizer) -> bool:
    """Set a library up that encodes without Python's lock. Return True if there is one for the tokenizer."""
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

"""Text to ids by the million: the same ids as a tokenizer's own `encode`, in an array, in several processes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from minigpt.data.document_split import Passage
from minigpt.data.shards import SPLITS, Split
from minigpt.errors import DataError, OutOfMemoryError, UnknownCharacterError
from minigpt.system.process_pool import map_in_order, start_pool
from minigpt.tokenizers.base import Tokenizer, find_end_of_text
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.loading import load_tokenizer

CODE_POINTS = 0x110000

Encoded = dict[Split, bytes]  # the ids of some pieces, for each split those that are its own
Encode = Callable[[Iterable[Sequence[Passage]]], Iterator[Encoded]]


class _PassageEncoder:
    """Pieces to the bytes of their ids, an end-of-text token where a run of them ends."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype) -> None:
        """The tokenizer must have an end-of-text token."""
        self.dtype, self.end = dtype, np.array([find_end_of_text(tokenizer)], dtype)
        self.ids: Callable[[str], Sequence[int] | np.ndarray] = tokenizer.encode
        if isinstance(tokenizer, CharTokenizer):
            self.ids = _build_char_encoder(tokenizer)
        elif isinstance(tokenizer, BPETokenizer):
            tokenizer.tiktoken_threshold = 0
            tokenizer.encode("")  # says so, if tiktoken is used

    def __call__(self, batch: Sequence[Passage]) -> Encoded:
        """Raises DataError, with the file, for a text that the tokenizer cannot encode."""
        found: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
        for piece in batch:
            try:
                found[piece.split].append(np.asarray(self.ids(piece.text), self.dtype))
            except DataError as error:
                raise DataError(f"{piece.source!r}: {error}") from None
            if piece.ends_run:
                found[piece.split].append(self.end)
        return {split: np.concatenate(ids).tobytes() if ids else b"" for split, ids in found.items()}


def _build_char_encoder(tokenizer: CharTokenizer) -> Callable[[str], np.ndarray]:
    """A character tokenizer's `encode`, by a table that has an id, or -1, for each character of Unicode."""
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

    return encode


def to_code_points(text: str) -> np.ndarray:
    """The characters of a text as numbers: (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


@contextmanager
def start_encoder(tokenizer_file: Path, tokenizer: Tokenizer, dtype: np.dtype, processes: int) -> Iterator[Encode]:
    """A function that encodes batches, in order, in so many processes, which open the tokenizer's file themselves."""
    encoder = _PassageEncoder(tokenizer, dtype)
    if processes == 1:
        yield lambda batches: map(encoder, batches)
        return
    with start_pool(processes, _open, tokenizer_file, dtype) as pool:
        try:
            yield lambda batches: map_in_order(pool, _encode, batches)
        except BrokenProcessPool:
            raise OutOfMemoryError("a process that encodes was killed, for want of memory: --processes 1") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_encoder: _PassageEncoder  # a worker's own


def _open(tokenizer_file: Path, dtype: np.dtype) -> None:
    global _encoder
    _encoder = _PassageEncoder(load_tokenizer(tokenizer_file), dtype)


def _encode(batch: Sequence[Passage]) -> Encoded:
    return _encoder(batch)

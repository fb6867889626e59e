"""Encoding of a large corpus: a tokenizer's ids as arrays, computed by several processes."""

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

CODE_POINTS = 0x110000  # the number of Unicode code points

EncodedBatch = dict[Split, bytes]  # the ids of each split's passages, as a shard holds them
EncodeBatches = Callable[[Iterable[Sequence[Passage]]], Iterator[EncodedBatch]]


@contextmanager
def start_encoder(
    tokenizer_file: Path, tokenizer: Tokenizer, dtype: np.dtype, processes: int
) -> Iterator[EncodeBatches]:
    """Start processes that encode batches of passages; they end with the block.

    Args:
        tokenizer_file: the tokenizer's file, which each process reads.
        tokenizer: the tokenizer, which must have an end-of-text token.
        dtype: the type of the ids in the shards.
        processes: how many processes; 1 encodes in this one.

    Yields:
        A function that encodes batches and returns the results in order.

    Raises:
        OutOfMemoryError: the system killed a process for lack of memory.
    """
    encoder = _PassageEncoder(tokenizer, dtype)
    if processes == 1:
        yield lambda batches: map(encoder, batches)
        return
    with start_pool(processes, _load_encoder, tokenizer_file, dtype) as pool:
        try:
            yield lambda batches: map_in_order(pool, _encode, batches)
        except BrokenProcessPool:
            raise OutOfMemoryError("a worker process was killed because memory ran out: use --processes 1") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _PassageEncoder:
    """Encodes passages, with an end-of-text token where a run of them ends."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype) -> None:
        self.dtype, self.end = dtype, np.array([find_end_of_text(tokenizer)], dtype)
        self.encode: Callable[[str], Sequence[int] | np.ndarray] = tokenizer.encode
        if isinstance(tokenizer, CharTokenizer):
            self.encode = _build_char_encoder(tokenizer)
        elif isinstance(tokenizer, BPETokenizer):
            tokenizer.tiktoken_threshold = 0
            tokenizer.encode("")  # sets tiktoken up, and logs that it is used

    def __call__(self, batch: Sequence[Passage]) -> EncodedBatch:
        """Encode a batch. Raise DataError, with the file's name, for a text that the tokenizer cannot encode."""
        found: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
        for passage in batch:
            try:
                found[passage.split].append(np.asarray(self.encode(passage.text), self.dtype))
            except DataError as error:
                raise DataError(f"{passage.source!r}: {error}") from None
            if passage.ends_run:
                found[passage.split].append(self.end)
        return {split: np.concatenate(ids).tobytes() if ids else b"" for split, ids in found.items()}


def _build_char_encoder(tokenizer: CharTokenizer) -> Callable[[str], np.ndarray]:
    """Return a faster `encode`, which looks ids up in a table of all code points."""
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
    """Return the characters of a text as numbers: (len(text),), uint32."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


_encoder: _PassageEncoder  # each process of the pool has one


def _load_encoder(tokenizer_file: Path, dtype: np.dtype) -> None:
    global _encoder
    _encoder = _PassageEncoder(load_tokenizer(tokenizer_file), dtype)


def _encode(batch: Sequence[Passage]) -> EncodedBatch:
    return _encoder(batch)

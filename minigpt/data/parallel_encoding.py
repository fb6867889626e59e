"""Encoding of a large corpus by several threads or processes.

Threads are used where a library encodes without Python's lock: they start at once and share the texts. Otherwise
processes are used.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from minigpt.data.array_encoding import build_array_encoder, set_up_library
from minigpt.data.document_split import Passage
from minigpt.data.shards import SPLITS, Split
from minigpt.errors import DataError, OutOfMemoryError
from minigpt.system.process_pool import map_in_order, start_pool
from minigpt.tokenizers.base import Tokenizer, find_end_of_text
from minigpt.tokenizers.loading import load_tokenizer

EncodedBatch = dict[Split, bytes]  # the ids of each split's passages, as a shard holds them
EncodeBatches = Callable[[Iterable[Sequence[Passage]]], Iterator[EncodedBatch]]


@contextmanager
def start_encoder(
    tokenizer_file: Path, tokenizer: Tokenizer, dtype: np.dtype, processes: int
) -> Iterator[EncodeBatches]:
    """Start threads or processes that encode batches of passages; they end with the block.

    Args:
        tokenizer_file: the tokenizer's file, which each process reads.
        tokenizer: the tokenizer, which must have an end-of-text token.
        dtype: the type of the ids in the shards.
        processes: how many threads or processes; 1 encodes in this thread.

    Yields:
        A function that encodes batches and returns the results in order.

    Raises:
        OutOfMemoryError: the system killed a process for lack of memory.
    """
    encoder = _PassageEncoder(tokenizer, dtype)
    if processes == 1:
        yield lambda batches: map(encoder, batches)
        return
    pool: Executor
    if set_up_library(tokenizer):
        pool, encode = ThreadPoolExecutor(processes), encoder.__call__
    else:
        pool, encode = start_pool(processes, _load_encoder, tokenizer_file, dtype), _encode
    with pool:
        try:
            yield lambda batches: map_in_order(pool, encode, batches)
        except BrokenProcessPool:
            raise OutOfMemoryError("a worker process was killed because memory ran out: use --processes 1") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _PassageEncoder:
    """Encodes passages, with an end-of-text token where a run of them ends."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype) -> None:
        self.dtype, self.end = dtype, np.array([find_end_of_text(tokenizer)], dtype)
        self.encode = build_array_encoder(tokenizer)

    def __call__(self, batch: Sequence[Passage]) -> EncodedBatch:
        """Encode a batch. Raise DataError, with the file's name, for a text that the tokenizer cannot encode."""
        found: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
        for passage, ids in zip(batch, self._encode_texts(batch), strict=True):
            found[passage.split].append(ids)
            if passage.ends_run:
                found[passage.split].append(self.end)
        return {split: self._to_bytes(arrays) for split, arrays in found.items()}

    def _encode_texts(self, batch: Sequence[Passage]) -> list[np.ndarray]:
        try:
            return self.encode([passage.text for passage in batch])
        except DataError:
            for passage in batch:
                try:
                    self.encode([passage.text])
                except DataError as error:
                    raise DataError(f"{passage.source!r}: {error}") from None
            raise

    def _to_bytes(self, arrays: Sequence[np.ndarray]) -> bytes:
        return np.concatenate(arrays, dtype=self.dtype, casting="unsafe").tobytes() if arrays else b""


_encoder: _PassageEncoder  # each process of the pool has one


def _load_encoder(tokenizer_file: Path, dtype: np.dtype) -> None:
    global _encoder
    _encoder = _PassageEncoder(load_tokenizer(tokenizer_file), dtype)


def _encode(batch: Sequence[Passage]) -> EncodedBatch:
    return _encoder(batch)

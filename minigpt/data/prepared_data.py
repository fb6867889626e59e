"""Prepared data, opened for training: shards are mapped into memory, so a corpus may be larger than memory."""

import bisect
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minigpt.data.shards import INDEX, MAX_INDEX_BYTES, SPLITS, Index, check_shards
from minigpt.errors import DataError
from minigpt.system.files import allow_open_files, explain_os_errors, read_bytes
from minigpt.system.memory_map import map_file
from minigpt.tokenizers.base import Tokenizer, compute_fingerprint
from minigpt.tokenizers.loading import load_tokenizer


class PreparedData:
    """A folder that `minigpt data prepare` made, opened.

    Attributes:
        folder: the folder; `paths` has it as text.
        index: the content of its data.json.
        tokenizer: the tokenizer that made the ids.
        train: the ids of the training split.
        val: the ids of the validation split.
        sha256: the SHA-256 of data.json, which has those of all shards, in hexadecimal.
        source: a description of where the text came from, for messages.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open the folder and check all its files.

        Raises:
            FileError: a file is missing or damaged.
            DataError: the preparation is not finished, or the tokenizer is another one.
        """
        self.folder = Path(folder)
        self.paths = (str(folder),)
        self.source = f"the prepared data in {folder}"
        self.index = Index.read(self.folder)
        if not self.index.finished:
            raise DataError(
                f"the data in {str(folder)!r} is not finished: run the same minigpt data prepare again to finish it"
            )
        self.tokenizer = open_tokenizer(self.folder, self.index)
        self.sha256 = hashlib.sha256(read_bytes(self.folder / INDEX, MAX_INDEX_BYTES)).hexdigest()
        check_shards(self.folder, self.index)
        self.train, self.val = (
            TokenFiles([self.folder / s.name for s in self.index.shards(split) if s.tokens], self.index.dtype)
            for split in SPLITS
        )

    @property
    def is_altered(self) -> bool:
        """True if U+FFFD was written for characters or bytes of the documents."""
        return self.index.replaced > 0

    @property
    def characters(self) -> int:
        """The number of characters in all documents."""
        return self.index.total("characters")


class TokenFiles:
    """The ids of several shards as one long sequence; only what is read is in memory."""

    def __init__(self, paths: Sequence[Path], dtype: np.dtype) -> None:
        """Map the files into memory.

        Args:
            paths: the shards, in order.
            dtype: the type of their ids.
        """
        allow_open_files(2 * len(paths))  # the other split has about as many
        self._shards = [_map_file(path, dtype) for path in paths]
        self._ends = list(itertools.accumulate(map(len, self._shards)))
        self._begins = [end - len(shard) for end, shard in zip(self._ends, self._shards, strict=True)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, stretch: slice) -> np.ndarray:
        """Return a copy of a stretch of ids: int64."""
        start, stop, _ = stretch.indices(len(self))
        return self.read_rows([start], stop - start)[0] if stop > start else np.empty(0, np.int64)

    def read_rows(self, starts: Sequence[int], length: int) -> np.ndarray:
        """Return the stretches of `length` ids, at least 1, that begin at `starts`: (B, length), int64."""
        shards, begins, ends = self._shards, self._begins, self._ends  # local names are faster: a batch takes 10 µs
        parts = []
        for start in starts:
            n = bisect.bisect_right(ends, start)
            begin = start - begins[n]
            parts.append(shards[n][begin : begin + length])
            missing = length - len(parts[-1])
            while missing:  # the stretch continues in the next shard
                n += 1
                parts.append(shards[n][:missing])
                missing -= len(parts[-1])
        return np.concatenate(parts, dtype=np.int64).reshape(len(starts), length)


def _map_file(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(map_file(path), dtype)


def open_tokenizer(folder: Path, index: Index) -> Tokenizer:
    """Read the tokenizer beside the shards.

    Raises:
        FileError: the file is missing or damaged.
        DataError: it is not the tokenizer that made the shards.
    """
    tokenizer = load_tokenizer(folder / index.tokenizer)
    if compute_fingerprint(tokenizer) != index.tokenizer_sha256 or tokenizer.vocab_size != index.vocab_size:
        raise DataError(
            f"{str(folder / index.tokenizer)!r} is not the tokenizer that made the shards beside it: put the original "
            "back, or prepare the data again"
        )
    return tokenizer


def is_prepared(data: object) -> bool:
    """Return True for the path of prepared data, finished or not."""
    if not isinstance(data, str | Path):
        return False
    with explain_os_errors("read", data):
        return (Path(data) / INDEX).is_file()

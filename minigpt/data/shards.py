"""Prepared data on disk: a folder of shards, files of token ids, and an index of them.

    data.json           the index: which tokenizer, which shards, how much is in each, their SHA-256
    tokenizer.json      the tokenizer; tokenizer.model for SentencePiece
    train-00000.bin     ids of training documents, little-endian uint16 or uint32, an end-of-text token after each
    val-00000.bin       ids of validation documents

prepare.py writes such a folder; prepared_data.py opens it for training.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from minigpt.errors import FileError
from minigpt.system.files import explain_os_errors, read_bytes, require_inside, write_atomic

INDEX = "data.json"
MAX_INDEX_BYTES = 16 * 2**20  # bytes; as Python objects it can take thirty times as much memory
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

_FORMAT = 1
_SHARD_NAME = re.compile(r"(train|val)-\d{5,}\.bin")
_COUNTS = ("documents", "characters", "bytes")
_BYTES_AT_A_TIME = 2**24


@dataclass(frozen=True)
class Shard:
    """One file of ids.

    Attributes:
        name: the file's name.
        tokens: the number of ids.
        sha256: the SHA-256 of the file, in hexadecimal.
    """

    name: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """A stretch of the corpus that is encoded at once, as one shard of each split.

    Attributes:
        documents: the number of documents that end in it.
        characters: the number of characters.
        bytes: the number of bytes in UTF-8.
        text_sha256: the SHA-256 of its text, by which an interrupted preparation recognizes it.
        train: the shard of training documents, or None without any.
        val: the shard of validation documents, or None without any.
    """

    documents: int
    characters: int
    bytes: int
    text_sha256: str
    train: Shard | None
    val: Shard | None


@dataclass(frozen=True)
class Index:
    """The content of data.json.

    Attributes:
        settings: how the data is prepared, to continue in the same way.
        tokenizer: the name of the tokenizer's file.
        tokenizer_sha256: the tokenizer's fingerprint.
        vocab_size: the number of tokens.
        end_of_text: the id of the token after each document.
        parts: the finished parts, in order.
        replaced: how many bytes, or runs of bytes, were not UTF-8 and became U+FFFD.
        empty: how many documents were empty and left out.
        finished: whether all parts are written.
        format: the version of this format.
    """

    settings: dict[str, Any]
    tokenizer: str
    tokenizer_sha256: str
    vocab_size: int
    end_of_text: int
    parts: tuple[Part, ...] = ()
    replaced: int = 0
    empty: int = 0
    finished: bool = False
    format: int = _FORMAT

    @property
    def dtype(self) -> np.dtype:
        """The type of the ids in the shards."""
        return choose_id_type(self.vocab_size)

    def shards(self, split: Split) -> list[Shard]:
        """The shards of a split, in order."""
        return [shard for part in self.parts if (shard := getattr(part, split))]

    def tokens(self, split: Split) -> int:
        """The number of tokens in a split."""
        return sum(shard.tokens for shard in self.shards(split))

    def total(self, name: str) -> int:
        """The total of one of the parts' counts: "documents", "characters" or "bytes"."""
        return sum(getattr(part, name) for part in self.parts)

    def write(self, folder: Path) -> None:
        """Write data.json, all or nothing. Raise FileError."""
        write_atomic(folder / INDEX, json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read data.json.

        Raises:
            FileError: the file is missing, damaged or of another format.
        """
        path = folder / INDEX
        if path.exists() and not path.is_file():
            raise FileError(f"{str(path)!r} is not a file: it has to be the index of prepared data")
        require_inside(folder, [path, *folder.glob("tokenizer.*")])
        try:
            content = json.loads(read_bytes(path, MAX_INDEX_BYTES))
        except (ValueError, RecursionError) as error:
            raise FileError(f"{str(path)!r} is damaged: it is not JSON ({error})") from None
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise FileError(f"{str(path)!r} is not an index of format {_FORMAT}: another version wrote it")
        try:
            parts = [
                Part(**{**part, **{split: part[split] and Shard(**part[split]) for split in SPLITS}})
                for part in content.pop("parts")
            ]
            index = cls(**content, parts=tuple(parts))
        except (TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{str(path)!r} is damaged: {error}") from None
        index._require_valid(path)
        return index

    def _require_valid(self, path: Path) -> None:
        """Raise FileError for impossible values, such as counts below 0 or the name of another file."""
        whole = [self.vocab_size, self.end_of_text, self.replaced, self.empty]
        whole += [getattr(part, name) for part in self.parts for name in _COUNTS]
        shards = [shard for split in SPLITS for shard in self.shards(split)]
        texts = [self.tokenizer_sha256, *(part.text_sha256 for part in self.parts), *(s.sha256 for s in shards)]
        is_valid = (
            all(type(n) is int and 0 <= n < 2**53 for n in [*whole, *(shard.tokens for shard in shards)])
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(shard.name, str) and _SHARD_NAME.fullmatch(shard.name) for shard in shards)
            and len({shard.name for shard in shards}) == len(shards)
            and self.tokenizer in ("tokenizer.json", "tokenizer.model")
            and isinstance(self.settings, dict)
            and isinstance(self.finished, bool)
            and self.end_of_text < self.vocab_size < 2**32
        )
        if not is_valid:
            raise FileError(f"{str(path)!r} is damaged: it has an impossible value: prepare the data again")


def choose_id_type(vocab_size: int) -> np.dtype:
    """Return the type in which ids are stored: little-endian uint16 if that holds every id, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def check_shards(folder: Path, index: Index) -> None:
    """Check every shard of an index, as `check_shard` does."""
    for split in SPLITS:
        for shard in index.shards(split):
            check_shard(folder, shard, index)


def check_shard(folder: Path, shard: Shard, index: Index) -> None:
    """Raise FileError for a shard that is missing, cut short or altered, or has an id that is not a token."""
    path = folder / shard.name
    way_out = f"remove {str(folder)!r} and prepare the data again"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FileError(f"{str(path)!r} is a link or a device, not a shard: {way_out}")
    with explain_os_errors("read", path), path.open("rb") as file:
        size, expected = path.stat().st_size, shard.tokens * index.dtype.itemsize
        if size != expected:
            what = "cut short" if size < expected else "longer than it was"
            raise FileError(f"{str(path)!r} is {what}: it has {size:,} bytes instead of {expected:,}; {way_out}")
        digest = hashlib.sha256()
        largest = 0
        while content := file.read(_BYTES_AT_A_TIME):
            digest.update(content)
            largest = max(largest, int(np.frombuffer(content, index.dtype).max()))
    if digest.hexdigest() != shard.sha256:
        raise FileError(f"{str(path)!r} has been altered: its SHA-256 is not the one in {INDEX}; {way_out}")
    if largest >= index.vocab_size:
        raise FileError(f"{str(path)!r} has the id {largest}, which is not a token of its tokenizer: {way_out}")

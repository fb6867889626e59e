"""Token ids on disk: a folder of shards, files of little-endian uint16 or uint32, with an index beside them.

    data.json           the index: which tokenizer, which shards, how much is in each, their SHA-256
    tokenizer.json      the tokenizer; tokenizer.model if it is SentencePiece's
    train-00000.bin     ids of documents to train on, an end-of-text token after each
    val-00000.bin       ids of documents to validate with

They are mapped into memory, not read: what is not in use costs none, so that a corpus may be larger than memory.
`minigpt data prepare` makes such a folder (data/prepare.py).
"""

import bisect
import dataclasses
import hashlib
import itertools
import json
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minigpt.errors import DataError, FileError
from minigpt.system.files import allow_open_files, explain_os_errors, read_bytes, require_inside, write_atomic
from minigpt.tokenizers.base import Tokenizer, fingerprint
from minigpt.tokenizers.loading import load_tokenizer

FORMAT = 1
INDEX = "data.json"
LARGEST_INDEX = 16 * 2**20  # bytes, of which Python may make thirty times as many
NAME = re.compile(r"(train|val)-\d{5,}\.bin")
CHECKED = 2**24  # bytes checked at a time
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Shard:
    """One file of ids."""

    name: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """What was encoded together: a stretch of the corpus, as two shards; a split without a document has none there.

    Attributes:
        text_sha256: of its text, by which the same stretch is known again.
    """

    documents: int
    characters: int
    bytes: int
    text_sha256: str
    train: Shard | None
    val: Shard | None


@dataclass(frozen=True)
class Index:
    """What data.json holds.

    Attributes:
        settings: how it was made, to go on in the same way.
        tokenizer: the name of its file.
        tokenizer_sha256: its fingerprint.
        end_of_text: the id of the token after each document.
        replaced: how many bytes, or runs of them, were no UTF-8 and became U+FFFD.
        empty: how many documents had nothing in them and were left out.
        finished: whether that is all.
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
    format: int = FORMAT

    @property
    def dtype(self) -> np.dtype:
        """Of the ids in the shards."""
        return np.dtype("<u2" if self.vocab_size <= 2**16 else "<u4")

    def shards(self, split: Split) -> list[Shard]:
        """The shards of a split, in order."""
        return [shard for part in self.parts if (shard := getattr(part, split))]

    def tokens(self, split: Split) -> int:
        """How many tokens it has."""
        return sum(shard.tokens for shard in self.shards(split))

    def total(self, name: str) -> int:
        """The sum of a count of the parts: documents, characters or bytes."""
        return sum(getattr(part, name) for part in self.parts)

    def write(self, folder: Path) -> None:
        """Write data.json, all or nothing."""
        write_atomic(folder / INDEX, json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """Read data.json. Raises FileError for one that is missing, damaged or of another format."""
        path = folder / INDEX
        if path.exists() and not path.is_file():
            raise FileError(f"{str(path)!r} is not a file: it has to be the index of prepared data")
        require_inside(folder, [path, *folder.glob("tokenizer.*")])
        try:
            content = json.loads(read_bytes(path, LARGEST_INDEX))
        except (ValueError, RecursionError) as error:
            raise FileError(f"{str(path)!r} is damaged: it is not JSON ({error})") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise FileError(f"{str(path)!r} is not an index of format {FORMAT}: another version wrote it")
        try:
            parts = [
                Part(**{**part, **{split: part[split] and Shard(**part[split]) for split in SPLITS}})
                for part in content.pop("parts")
            ]
            index = cls(**content, parts=tuple(parts))
        except (TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{str(path)!r} is damaged: {error}") from None
        index.require_sound(path)
        return index

    def require_sound(self, path: Path) -> None:
        """Raise FileError for values that no index has: names of other files, counts below 0."""
        whole = [self.vocab_size, self.end_of_text, self.replaced, self.empty]
        whole += [getattr(part, name) for part in self.parts for name in COUNTS]
        shards = [shard for split in SPLITS for shard in self.shards(split)]
        texts = [self.tokenizer_sha256, *(part.text_sha256 for part in self.parts), *(s.sha256 for s in shards)]
        sound = (
            all(type(n) is int and 0 <= n < 2**53 for n in [*whole, *(shard.tokens for shard in shards)])
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(shard.name, str) and NAME.fullmatch(shard.name) for shard in shards)
            and len({shard.name for shard in shards}) == len(shards)
            and self.tokenizer in ("tokenizer.json", "tokenizer.model")
            and isinstance(self.settings, dict)
            and isinstance(self.finished, bool)
            and self.end_of_text < self.vocab_size < 2**32
        )
        if not sound:
            raise FileError(f"{str(path)!r} is damaged: it has a value that no index has: prepare the data anew")


COUNTS = ("documents", "characters", "bytes")


class TokenFiles:
    """The ids of some shards, one after another, as if they were one long sequence; in memory is only what is read."""

    def __init__(self, paths: Sequence[Path], dtype: np.dtype) -> None:
        allow_open_files(2 * len(paths))  # those of the other split too
        self.shards = [_map_file(path, dtype) for path in paths]
        self.ends = list(itertools.accumulate(map(len, self.shards)))
        self.begins = [end - len(shard) for end, shard in zip(self.ends, self.shards, strict=True)]

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, stretch: slice) -> np.ndarray:
        """A stretch of ids, copied: int64."""
        start, stop, _ = stretch.indices(len(self))
        return self.rows([start], stop - start)[0] if stop > start else np.empty(0, np.int64)

    def rows(self, starts: Sequence[int], length: int) -> np.ndarray:
        """The stretches of that length, at least 1, that begin at `starts`: (B, length), int64."""
        shards, begins, ends = self.shards, self.begins, self.ends  # looked up once: a batch takes microseconds
        parts = []
        for start in starts:
            n = bisect.bisect_right(ends, start)
            begin = start - begins[n]
            parts.append(shards[n][begin : begin + length])
            missing = length - len(parts[-1])
            while missing:  # it goes on in the next shard
                n += 1
                parts.append(shards[n][:missing])
                missing -= len(parts[-1])
        return np.concatenate(parts, dtype=np.int64).reshape(len(starts), length)


def _map_file(path: Path, dtype: np.dtype) -> np.ndarray:
    """A file's ids, mapped into memory."""
    with explain_os_errors("open", path), path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):  # or else the system reads on after each window, thirty times what is asked for
        content.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(content, dtype)


class PreparedData:
    """A folder of shards, opened.

    Attributes:
        folder: where it is; `path` the same, absolute, as text.
        index: what its data.json says.
        tokenizer: the one that made the ids.
        train: ids to train on.
        val: ids to validate with.
        sha256: of its data.json, which holds those of all shards.
        source: where the text came from, for people.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open and check all of it, shards and all. Raises FileError or DataError, naming what is wrong."""
        self.folder = Path(folder)
        self.path = str(self.folder.absolute())
        self.source = f"the prepared data in {folder}"
        self.index = Index.read(self.folder)
        if not self.index.finished:
            raise DataError(f"the data in {str(folder)!r} are not finished: go on with the same minigpt data prepare")
        self.tokenizer = open_tokenizer(self.folder, self.index)
        self.sha256 = hashlib.sha256(read_bytes(self.folder / INDEX, LARGEST_INDEX)).hexdigest()
        check_shards(self.folder, self.index)
        self.train, self.val = (
            TokenFiles([self.folder / s.name for s in self.index.shards(split) if s.tokens], self.index.dtype)
            for split in SPLITS
        )

    @property
    def characters(self) -> int:
        """Of all documents."""
        return self.index.total("characters")


def open_tokenizer(folder: Path, index: Index) -> Tokenizer:
    """The tokenizer beside the shards. Raises FileError, or DataError if it is not the one that made them."""
    tokenizer = load_tokenizer(folder / index.tokenizer)
    if fingerprint(tokenizer) != index.tokenizer_sha256 or tokenizer.vocab_size != index.vocab_size:
        raise DataError(
            f"{str(folder / index.tokenizer)!r} is not the tokenizer that the shards beside it were made with: "
            "put that one back, or prepare the data anew"
        )
    return tokenizer


def check_shards(folder: Path, index: Index) -> None:
    """Raise FileError unless every shard is what was written."""
    for split in SPLITS:
        for shard in index.shards(split):
            check_shard(folder, shard, index)


def check_shard(folder: Path, shard: Shard, index: Index) -> None:
    """Raise FileError for a shard that is missing, cut short or altered, or holds an id that is no token."""
    path = folder / shard.name
    way_out = f"remove {str(folder)!r} and prepare the data anew"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FileError(f"{str(path)!r} is a link or a device, not a shard: {way_out}")
    with explain_os_errors("read", path), path.open("rb") as file:
        size, expected = path.stat().st_size, shard.tokens * index.dtype.itemsize
        if size != expected:
            what = "cut short" if size < expected else "longer than it was"
            raise FileError(f"{str(path)!r} is {what}: it has {size:,} bytes instead of {expected:,}; {way_out}")
        digest = hashlib.sha256()
        largest = 0
        while content := file.read(CHECKED):
            digest.update(content)
            largest = max(largest, int(np.frombuffer(content, index.dtype).max()))
    if digest.hexdigest() != shard.sha256:
        raise FileError(f"{str(path)!r} has been altered: its SHA-256 is not the one in {INDEX}; {way_out}")
    if largest >= index.vocab_size:
        raise FileError(f"{str(path)!r} has the id {largest}, which is no token of its tokenizer: {way_out}")


def is_prepared(data: object) -> bool:
    """Whether that names a folder of shards, finished or not."""
    if not isinstance(data, str | Path):
        return False
    with explain_os_errors("read", data):
        return (Path(data) / INDEX).is_file()

"""Files of text to a folder of shards (data/shards.py), in one pass, however many there are.

A stretch of some millions of characters at a time, a part, is read, encoded and written; then the index that counts it.
Killed at any moment, the same command goes on: the texts are read again, finished parts known by their SHA-256.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import filelock
import numpy as np

from minigpt.config import DEFAULT_VOCAB_SIZE, TokenizerKind
from minigpt.data.document_split import Passage, batch_passages, split_documents
from minigpt.data.documents import DocumentReader, Errors
from minigpt.data.encoding import Encode, Encoded, start_encoder
from minigpt.data.file_discovery import FoundFiles, find_files
from minigpt.data.shards import INDEX, SPLITS, Index, Part, Shard, Split, check_shard, check_shards, open_tokenizer
from minigpt.data.tokenizer_training import train_on_stream
from minigpt.errors import ConfigError, DataError, FileError
from minigpt.system.files import explain_os_errors, flush_folder, require_inside
from minigpt.tokenizers.base import Tokenizer, find_end_of_text, fingerprint
from minigpt.tokenizers.loading import load_tokenizer

PART = 2**25  # characters encoded and saved together: what a crash can cost
BATCH = 2**20  # characters that a process is given at a time
SMALL = 2**23  # bytes of files; for fewer no further process is started
LOCK = ".lock"
UNFINISHED = re.compile(r"\.((train|val)-\d+\.bin|(data|tokenizer)\.(json|model)\.\d+)\.tmp")
OURS = re.compile(rf"\.lock|tokenizer\.(json|model)|{UNFINISHED.pattern}")  # what may be there before an index


@dataclass(frozen=True)
class PrepareSettings:
    """How a corpus is prepared.

    Attributes:
        tokenizer: a kind, to be learned, or the file or folder of one that is there.
        vocab_size: how many tokens to learn, where they are learned.
        field: the field of JSON lines, or the column of Parquet, that holds the text.
        separator: what stands between two documents within a text file.
        errors: what to do about bytes that are no UTF-8.
        train_fraction: the share of documents to train on.
        min_count: how often a character must occur not to be replaced by an unknown sign.
    """

    tokenizer: str = "char"
    vocab_size: int | None = None
    field: str = "text"
    separator: str | None = None
    errors: Errors = "strict"
    train_fraction: float = 0.9
    min_count: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction < 1:
            raise ConfigError(f"train_fraction must be above 0 and below 1, not {self.train_fraction}")
        if self.separator == "":
            raise ConfigError("the separator is empty: name what stands between documents, or leave it out")
        if self.min_count is not None and (self.tokenizer != "char" or self.min_count < 1):
            raise ConfigError("min_count must be at least 1, and is only for characters: --tokenizer char")
        if self.vocab_size is not None and self.tokenizer not in ("bpe", "sentencepiece"):
            raise ConfigError("vocab_size is only for the tokenizers bpe and sentencepiece, which are learned: drop it")


class Progress(Protocol):
    """Who is told how far it is."""

    def say(self, text: str) -> None:
        """A line of text."""

    def begin(self, title: str, total: int) -> None:
        """A pass over so many bytes of files begins."""

    def reached(self, position: int) -> None:
        """So many are read."""


def prepare(
    paths: Sequence[str | Path],
    out: str | Path,
    settings: PrepareSettings,
    progress: Progress,
    processes: int | None = None,
) -> Index:
    """Encode the documents in files, folders and patterns into shards in the folder `out`, or go on with it.

    Raises FileError, DataError and ConfigError, naming the file and the place; finished shards stay as they are.
    """
    found = find_files(paths)
    given = None if settings.tokenizer in get_args(TokenizerKind) else load_tokenizer(settings.tokenizer)
    kept = _describe_settings(settings, found, given)
    with lock_folder(Path(out)) as folder:
        if found.others:
            progress.say(f"{found.others:,} files that end otherwise are left alone")
        corpus = _CorpusReader(found, settings, progress)
        index = Index.read(folder) if (folder / INDEX).exists() else None
        if index is None:
            tokenizer = given or corpus.learned()
            index = create_index(folder, tokenizer, kept)
        else:
            _require_same_settings(folder, index.settings, kept)
            if index.finished:
                open_tokenizer(folder, index)
                check_shards(folder, index)
                progress.say(f"{str(folder)!r} is finished: nothing to do")
                return index
            tokenizer = open_tokenizer(folder, index)
        several = 1 if found.bytes < SMALL else processes or os.cpu_count() or 1
        with start_encoder(folder / index.tokenizer, tokenizer, index.dtype, several) as encode:
            index = _write_missing_parts(folder, index, corpus, encode)
        index = dataclasses.replace(index, finished=True)
        _require_both_splits(index, settings)
        index.write(folder)
        return index


class _CorpusReader:
    """The documents, cut and split: read from the files each time."""

    def __init__(self, found: FoundFiles, settings: PrepareSettings, progress: Progress) -> None:
        self.found, self.settings, self.progress = found, settings, progress
        self.reader = DocumentReader()

    def read(self, title: str) -> Iterator[Passage]:
        """All of them, in order, while the progress is told."""
        settings = self.settings
        self.reader = DocumentReader(settings.field, settings.separator, settings.errors)
        self.progress.begin(title, self.found.bytes)
        before = 0
        for path, size in zip(self.found.files, self.found.sizes, strict=True):
            for piece in split_documents(self.reader.read(path), settings.train_fraction, str(path)):
                yield piece
                self.progress.reached(before + min(size, self.reader.position()))
            before += size
            self.progress.reached(before)

    def learned(self) -> Tokenizer:
        """The tokenizer that the settings ask for, learned from the documents."""
        kind, size = self.settings.tokenizer, self.settings.vocab_size or DEFAULT_VOCAB_SIZE
        title = "counting characters" if kind == "char" else "learning tokens"
        return train_on_stream(kind, size, self.read(title), self.settings.min_count)  # type: ignore[arg-type]


def _describe_settings(settings: PrepareSettings, found: FoundFiles, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What the index keeps of them: a tokenizer that was given by its fingerprint, the files by name and size."""
    listed = "".join(f"{path.name}\0{size}\0" for path, size in zip(found.files, found.sizes, strict=True))
    kept = dataclasses.asdict(settings) | {
        "files": hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
    }
    if tokenizer is not None:
        kept["tokenizer"] = fingerprint(tokenizer)
    return kept


def _require_same_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise DataError, naming the setting, unless the folder was begun in the same way."""
    for name in now:
        if before.get(name) == now[name]:
            continue
        new = "name a new --out"
        if name == "files":
            raise DataError(f"{str(folder)!r} was prepared from other files, or they have changed since: {new}")
        was, given = (f"{values.get(name)!r}" for values in (before, now))
        raise DataError(f"{str(folder)!r} was begun with {name} {was}, not {given}: leave that, or {new}")


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[Path]:
    """The folder, made if it isn't there, for this process alone; what a killed one left half-written is removed.

    Raises FileError for a folder with other things in it, or one that another process is at work on.
    """
    with explain_os_errors("write to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / INDEX).exists():
            foreign = next((path for path in sorted(folder.iterdir()) if not OURS.fullmatch(path.name)), None)
            if foreign:
                raise FileError(f"{str(folder)!r} is not empty, it has {foreign.name!r}: name a new --out")
        require_inside(folder, folder.iterdir())
        lock = filelock.FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise FileError(f"another process is at work on {str(folder)!r}: let it end, or name a new --out") from None
    try:
        with explain_os_errors("write to", folder):
            for left in folder.glob(".*.tmp"):
                if UNFINISHED.fullmatch(left.name):
                    left.unlink()
        yield folder
    finally:
        lock.release()


def create_index(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> Index:
    """The folder's first index, written after its tokenizer. Raises DataError for one without an end-of-text token."""
    end = find_end_of_text(tokenizer)
    if end is None:
        raise DataError(
            "this tokenizer has no token to put between documents: learn one with minigpt tokenizer train "
            '--special "<|endoftext|>", or let minigpt data prepare learn it'
        )
    name = "tokenizer.model" if tokenizer.kind == "sentencepiece" else "tokenizer.json"
    index = Index(settings, name, fingerprint(tokenizer), tokenizer.vocab_size, end)
    tokenizer.save(folder / name)
    index.write(folder)
    return index


def _write_missing_parts(folder: Path, index: Index, texts: _CorpusReader, encode: Encode) -> Index:
    """The index once all parts are written; those that are there already are only read again."""
    for number, part in enumerate(batch_passages(texts.read("encoding"), PART)):
        text_sha256, size = _hash_part(part)
        if number < len(index.parts):
            known = index.parts[number]
            if known.text_sha256 != text_sha256:
                raise DataError(f"the texts have changed since {str(folder)!r} was begun: name a new --out")
            for split in SPLITS:
                if shard := getattr(known, split):
                    check_shard(folder, shard, index)
            continue
        shards = write_shards(folder, number, encode(batch_passages(part, BATCH)), index.dtype)
        made = Part(
            documents=sum(piece.ends_document for piece in part),
            characters=sum(len(piece.text) for piece in part),
            bytes=size,
            text_sha256=text_sha256,
            train=shards["train"],
            val=shards["val"],
        )
        index = dataclasses.replace(index, parts=(*index.parts, made))
        index.write(folder)
        tokens = sum(shard.tokens for shard in shards.values() if shard)
        texts.progress.say(f"part {number + 1}: {made.characters:,} characters, {tokens:,} tokens")
    if not index.parts:
        raise DataError("there is no document with anything in it: name other files")
    return dataclasses.replace(index, replaced=texts.reader.replaced, empty=texts.reader.empty)


def _hash_part(part: Sequence[Passage]) -> tuple[str, int]:
    """The SHA-256 of a part, of its texts and where they end and go, and how many bytes its texts have."""
    found, size = hashlib.sha256(), 0
    for piece in part:
        content = piece.text.encode()
        found.update(f"{piece.split} {piece.ends_run} {piece.ends_document} {len(content)} ".encode())
        found.update(content)
        size += len(content)
    return found.hexdigest(), size


def write_shards(folder: Path, number: int, encoded: Iterator[Encoded], dtype: np.dtype) -> dict[Split, Shard | None]:
    """The shards of a part, written as its ids come, aside and flushed, then given their names."""
    names = {split: f"{split}-{number:05}.bin" for split in SPLITS}
    digests = {split: hashlib.sha256() for split in SPLITS}
    sizes = dict.fromkeys(SPLITS, 0)
    temporary = {split: folder / f".{name}.tmp" for split, name in names.items()}
    try:
        with explain_os_errors("write to", folder), contextlib.ExitStack() as stack:
            files = {split: stack.enter_context(temporary[split].open("wb")) for split in SPLITS}
            for ids in encoded:
                for split in SPLITS:
                    files[split].write(ids[split])
                    digests[split].update(ids[split])
                    sizes[split] += len(ids[split])
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        with explain_os_errors("write to", folder):
            for split in SPLITS:
                if sizes[split]:
                    temporary[split].replace(folder / names[split])
            flush_folder(folder)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return {
        split: Shard(names[split], sizes[split] // dtype.itemsize, digests[split].hexdigest()) if sizes[split] else None
        for split in SPLITS
    }


def _require_both_splits(index: Index, settings: PrepareSettings) -> None:
    """Raise DataError if all documents went to one split."""
    for split, about, way in (("train", "train on", "raise"), ("val", "validate with", "lower")):
        if not index.tokens(split):  # type: ignore[arg-type]
            among = f"of {index.total('documents'):,} documents none is left to {about}"
            raise DataError(
                f"{among} at a train_fraction of {settings.train_fraction:g}: name more, or {way} it, and a new --out; "
                "a single short text trains as it is, without data prepare: minigpt train --data FILE"
            )

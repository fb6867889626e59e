"""Preparation of a corpus: files of text become a folder of shards (shards.py), in one pass, whatever their size.

The corpus is read in parts of some millions of characters. Each part is encoded and written before the next is read.
After an interruption the same command continues: it reads the texts again and recognizes finished parts by their hash.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from minigpt.config import DEFAULT_VOCAB_SIZE, Errors, Newlines, TokenizerKind, TrainingConfig
from minigpt.data.document_split import Passage, batch_passages, find_threshold, split_documents
from minigpt.data.documents import DocumentReader
from minigpt.data.file_discovery import FoundFiles, find_files
from minigpt.data.parallel_encoding import start_encoder
from minigpt.data.prepared_data import open_tokenizer
from minigpt.data.shard_writer import create_index, lock_folder, write_missing_parts
from minigpt.data.shards import INDEX, Index, Part, check_shards
from minigpt.data.text_format import TextFormat
from minigpt.data.tokenizer_training import train_on_stream
from minigpt.errors import ConfigError, DataError
from minigpt.system.advice import format_setting
from minigpt.system.cpus import count_cpus
from minigpt.system.read_ahead import read_ahead
from minigpt.tokenizers.base import END_OF_TEXT, Tokenizer, compute_fingerprint
from minigpt.tokenizers.loading import load_tokenizer

_PART_CHARACTERS = 2**25  # an interruption loses at most the work on one part
_BATCHES = 4  # of a part, for each thread or process
_SMALL_CORPUS = 2**23  # bytes; in a larger corpus both splits have documents
_PARALLEL_FROM_BYTES = 2**23  # for a smaller corpus one process is as fast as several
_CHARACTERS_PER_UPDATE = 2**18  # between two reports of the progress


@dataclass(frozen=True)
class PrepareSettings:
    """How a corpus is prepared.

    Attributes:
        tokenizer: a kind of tokenizer to train, or the file or folder of a trained one.
        vocab_size: the number of tokens of "bpe" or "sentencepiece"; None for the default.
        field: the field of JSON lines, or the column of Parquet, that has the text.
        separator: the text between two documents of a plain text file; None reads a file as one document.
        encoding: of plain text files, as in `TextFormat`; likewise newlines.
        errors: what to do about bytes that are not text: "strict" raises an error, "replace" writes U+FFFD.
        train_fraction: the share of documents for training.
        min_count: how often a character must occur to be in the vocabulary; None keeps every character.

    Raises:
        ConfigError: a value is impossible.
    """

    tokenizer: str = "char"
    vocab_size: int | None = None
    field: str = "text"
    separator: str | None = None
    encoding: str = TrainingConfig.encoding
    newlines: Newlines = TrainingConfig.newlines
    errors: Errors = TrainingConfig.errors
    train_fraction: float = 0.9
    min_count: int | None = None

    @property
    def text_format(self) -> TextFormat:
        """How text files are read."""
        return TextFormat(self.encoding, self.newlines, self.errors)

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction < 1:
            raise ConfigError(f"train_fraction must be above 0 and below 1, not {self.train_fraction}")
        if self.separator == "":
            raise ConfigError("the separator is empty: name what stands between documents, or leave it out")
        if self.min_count is not None and (self.tokenizer != "char" or self.min_count < 1):
            raise ConfigError("min_count must be at least 1, and is only for characters: --tokenizer char")
        if self.vocab_size is not None and self.tokenizer not in ("bpe", "sentencepiece"):
            raise ConfigError("vocab_size is only for the tokenizers bpe and sentencepiece: leave it out")


class Progress(Protocol):
    """Reports the progress of a preparation."""

    def say(self, text: str) -> None:
        """Report a message of one line."""

    def begin(self, title: str, total: int) -> None:
        """Report that a pass over `total` bytes of files begins."""

    def update(self, position: int) -> None:
        """Report that `position` bytes of the pass are read."""


def prepare_corpus(
    paths: Sequence[str | Path],
    out: str | Path,
    settings: PrepareSettings,
    progress: Progress,
    processes: int | None = None,
    *,
    part_characters: int = _PART_CHARACTERS,
    batch_characters: int | None = None,
    parallel_from_bytes: int = _PARALLEL_FROM_BYTES,
) -> Index:
    """Encode documents into shards, or continue an interrupted preparation.

    Args:
        paths: files, folders and patterns, as in `find_files`.
        out: the folder of the shards.
        settings: how to read, split and encode the documents.
        progress: receives messages and positions.
        processes: how many threads or processes encode; None for one for each CPU that this process may use.
        part_characters: how much text is encoded and saved at a time.
        batch_characters: how much text a thread or process encodes at a time; None for a share of a part.
        parallel_from_bytes: files of this total size or more, in bytes, are encoded by several processes.

    Returns:
        The finished index, which has been written.

    Raises:
        ConfigError: a setting is impossible.
        DataError: a document cannot be encoded, or `out` was prepared in another way.
        FileError: a file cannot be read or written. Finished shards stay as they are.
    """
    found = find_files(paths)
    given_tokenizer = None if settings.tokenizer in get_args(TokenizerKind) else load_tokenizer(settings.tokenizer)
    with lock_folder(Path(out)) as folder:
        _report_files_left_out(found, progress)
        corpus = _CorpusReader(found, settings, progress)
        index, tokenizer = _open_index(folder, corpus, given_tokenizer)
        if index.finished:
            check_shards(folder, index)
            progress.say(f"{str(folder)!r} is finished: nothing to do")
            return index
        workers = 1 if found.bytes < parallel_from_bytes else processes or count_cpus()
        with start_encoder(folder / index.tokenizer, tokenizer, index.dtype, workers) as encode:
            parts = read_ahead(batch_passages(corpus.read("encoding"), part_characters))
            size = batch_characters or part_characters // (_BATCHES * workers)
            index = write_missing_parts(folder, index, parts, encode, size, corpus.report_part)
        if not index.parts:
            raise DataError("there is no document with anything in it: name other files")
        corpus.report_unusual_text()
        replaced, empty = corpus.reader.replaced, corpus.reader.empty
        index = dataclasses.replace(index, replaced=replaced, empty=empty, finished=True)
        _require_both_splits(index, settings)
        index.write(folder)
        return index


def _report_files_left_out(found: FoundFiles, progress: Progress) -> None:
    """Say how many files of the folders are not read."""
    if found.others:
        progress.say(f"{found.others:,} files with other endings are left out")
    if found.dead_links:
        progress.say(f"{found.dead_links:,} links lead nowhere and are left out")


class _CorpusReader:
    """Reads the passages of all files, as often as needed."""

    def __init__(self, found: FoundFiles, settings: PrepareSettings, progress: Progress) -> None:
        self.found, self.settings, self.progress = found, settings, progress
        self.reader = DocumentReader()
        self.marked = 0  # passages that have <|endoftext|> in their text

    @functools.cached_property
    def threshold(self) -> float:
        """The hash from which on short documents validate. A small corpus is read for it, once."""
        settings = self.settings
        if self.found.bytes >= _SMALL_CORPUS:
            return settings.train_fraction
        reader = DocumentReader(settings.field, settings.separator, settings.text_format)
        chunks = itertools.chain.from_iterable(map(reader.read, self.found.files))
        return find_threshold(chunks, settings.train_fraction)

    def read(self, title: str) -> Iterator[Passage]:
        """Read all passages in order, and report the progress under a title."""
        settings = self.settings
        self.reader = DocumentReader(settings.field, settings.separator, settings.text_format)
        self.progress.begin(title, self.found.bytes)
        before, self.marked, unreported = 0, 0, 0
        for path, size in zip(self.found.files, self.found.sizes, strict=True):
            chunks = self.reader.read(path)
            for passage in split_documents(chunks, settings.train_fraction, str(path), self.threshold):
                self.marked += END_OF_TEXT in passage.text
                yield passage
                unreported += len(passage.text)
                if unreported >= _CHARACTERS_PER_UPDATE:
                    self.progress.update(before + min(size, self.reader.position()))
                    unreported = 0
            before += size
            self.progress.update(before)

    def train_tokenizer(self) -> Tokenizer:
        """Train the tokenizer that the settings ask for."""
        kind, size = self.settings.tokenizer, self.settings.vocab_size or DEFAULT_VOCAB_SIZE
        title = "counting characters" if kind == "char" else "learning tokens"
        return train_on_stream(kind, size, self.read(title), self.settings.min_count)  # type: ignore[arg-type]

    def report_unusual_text(self) -> None:
        """Say what the last reading has found: byte order marks, line ends of Windows, and <|endoftext|>."""
        reader, say = self.reader, self.progress.say
        if reader.byte_order_marks:
            say(f"{reader.byte_order_marks:,} files begin with a byte order mark, which is left out")
        if reader.windows_files and self.settings.newlines == "keep":
            way_out = f"{format_setting('newlines', 'unix')} and a new {format_setting('out')}"
            kept = f"{reader.windows_files:,} files have line ends of Windows (\\r\\n), which are kept"
            say(f"{kept}: {way_out} read each as \\n")
        if self.marked:
            what = f"{self.marked:,} passages have {END_OF_TEXT} as ordinary text"
            say(f"{what}: if it ends a document, add --separator '{END_OF_TEXT}' and name a new --out")

    def report_part(self, number: int, part: Part) -> None:
        """Report that a part is written."""
        tokens = sum(shard.tokens for shard in (part.train, part.val) if shard)
        self.progress.say(f"part {number + 1}: {part.characters:,} characters, {tokens:,} tokens")


def _open_index(folder: Path, corpus: _CorpusReader, given_tokenizer: Tokenizer | None) -> tuple[Index, Tokenizer]:
    """Return the index and the tokenizer of a folder that was started earlier, or start it.

    Raises:
        DataError: the folder was started with other settings.
    """
    recorded = _describe_settings(corpus.settings, corpus.found, given_tokenizer)
    if not (folder / INDEX).exists():
        tokenizer = given_tokenizer or corpus.train_tokenizer()
        return create_index(folder, tokenizer, recorded), tokenizer
    index = Index.read(folder)
    _require_same_settings(folder, index.settings, recorded)
    return index, open_tokenizer(folder, index)


def _describe_settings(settings: PrepareSettings, found: FoundFiles, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the settings as the index records them: a given tokenizer by its fingerprint, files by name and size."""
    listed = "".join(f"{path.name}\0{size}\0" for path, size in zip(found.files, found.sizes, strict=True))
    files_sha256 = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
    recorded = dataclasses.asdict(settings) | {"files": files_sha256}
    if tokenizer is not None:
        recorded["tokenizer"] = compute_fingerprint(tokenizer)
    return recorded


def _require_same_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise DataError, naming the setting, unless the folder was started with the same settings."""
    for name in now:
        if before.get(name) == now[name]:
            continue
        if name == "files":
            why = "was prepared from other files, or they have changed since"
            raise DataError(f"{str(folder)!r} {why}: name a new --out")
        raise DataError(
            f"{str(folder)!r} was started with {name} {before.get(name)!r}, not {now[name]!r}: use the same {name}, "
            "or name a new --out"
        )


def _require_both_splits(index: Index, settings: PrepareSettings) -> None:
    """Raise DataError if all documents are in one split."""
    for split, purpose, change in (("train", "train on", "raise"), ("val", "validate with", "lower")):
        if not index.tokens(split):  # type: ignore[arg-type]
            none_left = f"of {index.total('documents'):,} documents none is left to {purpose}"
            raise DataError(
                f"{none_left} at a train_fraction of {settings.train_fraction:g}: name more documents, or {change} it, "
                "and a new --out; a single short text needs no data prepare: minigpt train --data FILE"
            )

"""Writing prepared data: the folder's lock, its first index, and its shards, part by part.

A killed process leaves a folder that another one can continue: a part counts once the index names it, and the index is
written after the part's shards.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.data.document_split import Passage, batch_passages
from minigpt.data.parallel_encoding import EncodeBatches, EncodedBatch
from minigpt.data.shards import INDEX, SPLITS, Index, Part, Shard, Split, check_shard
from minigpt.errors import DataError, FileError
from minigpt.system.files import explain_os_errors, flush_folder, lock_file, require_inside
from minigpt.tokenizers.base import Tokenizer, compute_fingerprint, find_end_of_text

_LOCK = ".lock"
_UNFINISHED = re.compile(r"\.((train|val)-\d+\.bin|(data|tokenizer)\.(json|model)\.\d+)\.tmp")
_ALLOWED_BEFORE_INDEX = re.compile(rf"\.lock|tokenizer\.(json|model)|{_UNFINISHED.pattern}")


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[Path]:
    """Reserve a folder for this process, and remove the temporary files that a killed process left.

    Args:
        folder: the folder; it is created if it is missing.

    Raises:
        FileError: the folder has other files, or another process is writing to it.
    """
    with explain_os_errors("write to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / INDEX).exists():
            names = sorted(path.name for path in folder.iterdir())
            foreign = next((name for name in names if not _ALLOWED_BEFORE_INDEX.fullmatch(name)), None)
            if foreign:
                raise FileError(f"{str(folder)!r} is not empty, it has {foreign!r}: name a new --out")
        require_inside(folder, folder.iterdir())
    message = f"another process is writing to {str(folder)!r}: wait until it ends, or name a new --out"
    with lock_file(folder / _LOCK, message):
        with explain_os_errors("write to", folder):
            for path in folder.glob(".*.tmp"):
                if _UNFINISHED.fullmatch(path.name):
                    path.unlink()
        yield folder


def create_index(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> Index:
    """Write the tokenizer and an index without parts.

    Args:
        folder: the locked folder.
        tokenizer: the tokenizer that will make the ids.
        settings: how the data is prepared.

    Raises:
        DataError: the tokenizer has no end-of-text token.
    """
    end = find_end_of_text(tokenizer)
    if end is None:
        raise DataError(
            "this tokenizer has no token to put between documents: train one with minigpt tokenizer train "
            '--special "<|endoftext|>", or let minigpt data prepare train it'
        )
    name = "tokenizer.model" if tokenizer.kind == "sentencepiece" else "tokenizer.json"
    index = Index(settings, name, compute_fingerprint(tokenizer), tokenizer.vocab_size, end)
    tokenizer.save(folder / name)
    index.write(folder)
    return index


def write_missing_parts(
    folder: Path,
    index: Index,
    parts: Iterable[Sequence[Passage]],
    encode: EncodeBatches,
    batch_characters: int,
    on_part: Callable[[int, Part], None],
) -> Index:
    """Write the shards of all parts that the index lacks, and check those that it has.

    Args:
        folder: the locked folder.
        index: the index so far.
        parts: the passages of each part of the corpus.
        encode: the function that encodes batches of passages.
        batch_characters: the size of these batches.
        on_part: is called with the number and the description of each part, once it is written.

    Returns:
        The index with all parts.

    Raises:
        DataError: the texts have changed since a finished part was written.
        FileError: a finished shard is damaged, or a shard cannot be written.
    """
    for number, passages in enumerate(parts):
        text_sha256, size = _hash_passages(passages)
        if number < len(index.parts):
            _require_finished(folder, index, number, text_sha256)
            continue
        shards = write_shards(folder, number, encode(batch_passages(passages, batch_characters)), index.dtype)
        part = Part(
            documents=sum(passage.ends_document for passage in passages),
            characters=sum(len(passage.text) for passage in passages),
            bytes=size,
            text_sha256=text_sha256,
            train=shards["train"],
            val=shards["val"],
        )
        index = dataclasses.replace(index, parts=(*index.parts, part))
        index.write(folder)
        on_part(number, part)
    return index


def _require_finished(folder: Path, index: Index, number: int, text_sha256: str) -> None:
    """Raise DataError if a finished part is of another text, and FileError if one of its shards is damaged."""
    part = index.parts[number]
    if part.text_sha256 != text_sha256:
        raise DataError(f"the texts have changed since {str(folder)!r} was started: name a new --out")
    for split in SPLITS:
        if shard := getattr(part, split):
            check_shard(folder, shard, index)


def _hash_passages(passages: Sequence[Passage]) -> tuple[str, int]:
    """Return the SHA-256 of passages, with their lengths and splits, and the number of bytes in their texts."""
    digest, size = hashlib.sha256(), 0
    for passage in passages:
        content = passage.text.encode()
        about = f"{passage.split} {passage.ends_run} {passage.ends_document} {len(content)} "
        digest.update(about.encode() + content)
        size += len(content)
    return digest.hexdigest(), size


def write_shards(
    folder: Path, number: int, batches: Iterable[EncodedBatch], dtype: np.dtype
) -> dict[Split, Shard | None]:
    """Write the shards of a part: to temporary files, which are flushed and then renamed.

    Args:
        folder: the locked folder.
        number: the part's number, from 0.
        batches: the encoded passages, in order.
        dtype: the type of the ids.

    Returns:
        The shard of each split, or None for a split without passages.

    Raises:
        FileError: a shard cannot be written; no temporary file is left.
    """
    names = {split: f"{split}-{number:05}.bin" for split in SPLITS}
    digests = {split: hashlib.sha256() for split in SPLITS}
    sizes = dict.fromkeys(SPLITS, 0)
    temporary = {split: folder / f".{name}.tmp" for split, name in names.items()}
    try:
        with explain_os_errors("write to", folder), contextlib.ExitStack() as stack:
            files = {split: stack.enter_context(temporary[split].open("wb")) for split in SPLITS}
            for batch in batches:
                for split in SPLITS:
                    files[split].write(batch[split])
                    digests[split].update(batch[split])
                    sizes[split] += len(batch[split])
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

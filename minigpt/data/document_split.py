"""The split of documents into training and validation, always the same for the same text.

A short document is wholly in one split, which the SHA-256 of its text decides. So it stays there when files are added,
and a copy of it goes to the same split. In a small corpus, where one split would be empty, it gets one document. A long
document, such as a book, is cut into passages. Every tenth passage validates (with the default share), and the hash of
the first passage decides where the counting begins. So exact copies are split in the same way. Near-copies may be split
in different ways: another hash may put a short document into the other split, and may start the count of a long
document at another passage.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minigpt.data.documents import Chunk
from minigpt.data.shards import Split

LONG_DOCUMENT = 2**16  # characters; a document with more is cut into passages
MAX_PASSAGE = 2**12  # characters; the last passage of a document may have twice as many


class Passage(NamedTuple):
    """A short document, or a part of a long one.

    Attributes:
        text: the text.
        split: "train" or "val".
        ends_run: whether an end-of-text token follows: the document ends, or its next passage is in the other split.
        ends_document: whether the document ends.
        source: the file it is from.
    """

    text: str
    split: Split
    ends_run: bool
    ends_document: bool
    source: str


def split_documents(
    chunks: Iterable[Chunk], train_fraction: float, source: str = "", threshold: float | None = None
) -> Iterator[Passage]:
    """Cut documents into passages and assign each passage to a split.

    Args:
        chunks: the documents, in chunks.
        train_fraction: the share of the text for training.
        source: the file that the documents are from.
        threshold: short documents with a hash of at least this validate, see `find_threshold`; None for train_fraction.
    """
    threshold = train_fraction if threshold is None else threshold
    held: tuple[str, Split] | None = None  # a passage whose `ends_run` depends on the next one
    offset, number = 0.0, 0
    for text, is_last, is_whole in cut_passages(chunks):
        if is_whole:
            split: Split = "val" if hash_to_fraction(text) >= threshold else "train"
            yield Passage(text, split, True, True, source)
            continue
        if held is None:
            offset, number = hash_to_fraction(text), 0
        split = _choose_split(number, offset, train_fraction)
        if held is not None:
            yield Passage(*held, held[1] != split, False, source)
        held = text, split
        number += 1
        if is_last:
            yield Passage(*held, True, True, source)
            held = None


def find_threshold(chunks: Iterable[Chunk], train_fraction: float) -> float:
    """Return the hash from which on short documents validate: train_fraction, moved if one split would be empty.

    In a small corpus all hashes may lie on one side of train_fraction. Then the document with the largest hash
    validates, or the one with the smallest is trained on. A long document has passages in both splits.

    Args:
        chunks: all documents, in chunks.
        train_fraction: the share of the text for training.
    """
    passages = [(text, is_whole) for text, _, is_whole in cut_passages(chunks) if text]
    hashes = sorted({hash_to_fraction(text) for text, is_whole in passages if is_whole})
    if len(hashes) < 2 or not all(is_whole for _, is_whole in passages):
        return train_fraction
    return min(max(train_fraction, hashes[1]), hashes[-1])


def _choose_split(number: int, offset: float, train_fraction: float) -> Split:
    """Return the split of a passage by its number: validation passages are evenly spaced."""
    rate = 1 - train_fraction
    return "val" if math.floor((number + 1) * rate + offset) > math.floor(number * rate + offset) else "train"


def hash_to_fraction(text: str) -> float:
    """Return a number from 0 to 1 that looks random and is always the same for a text: the start of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def cut_passages(chunks: Iterable[Chunk]) -> Iterator[tuple[str, bool, bool]]:
    """Join the chunks of short documents, and cut long documents into passages.

    Yields:
        The text, whether the document ends with it, and whether it is a whole short document.
    """
    buffer, is_long = "", False
    for chunk, is_last in chunks:
        buffer += chunk
        is_long = is_long or len(buffer) > LONG_DOCUMENT
        start = 0
        while is_long and len(buffer) - start > 2 * MAX_PASSAGE:  # so the last passage is never very short
            end = _find_cut(buffer, start)
            yield buffer[start:end], False, False
            start = end
        buffer = buffer[start:]
        if is_last:
            yield buffer, True, not is_long
            buffer, is_long = "", False


def _find_cut(text: str, start: int) -> int:
    """Return where to end the passage that begins at `start`: before a blank between two words, if there is one.

    Every tokenizer ends a token there, so the tokens of the passages are the tokens of the document.
    """
    low, high = start + MAX_PASSAGE // 2, start + MAX_PASSAGE
    end = text.rfind(" ", low, high)
    while end >= 0 and not (text[end - 1].isalpha() and text[end + 1].isalpha()):
        end = text.rfind(" ", low, end)
    if end < 0:
        end = text.rfind("\n", low, high) + 1
    return end if end > low else high


def batch_passages(passages: Iterable[Passage], characters: int) -> Iterator[list[Passage]]:
    """Collect passages into lists of about `characters` characters."""
    batch: list[Passage] = []
    count = 0
    for passage in passages:
        batch.append(passage)
        count += len(passage.text)
        if count >= characters:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch

"""Documents cut, split and gathered, always in the same way, so that what was once made of them is known again.

A document is wholly in one split, which the SHA-256 of its text decides: so it stays where it is when files are added,
and a copy of it goes where it went. One that is long, a book or a corpus in one file, is cut into passages, and of
these every tenth (or what the share is) validates, counted from a place that the hash of its first passage decides.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minigpt.data.documents import Chunk
from minigpt.data.shards import Split

LONG_DOCUMENT = 2**16  # characters of a document from which on it is cut
MAX_PASSAGE = 2**12  # characters of a passage, at most; of the last one twice as many


@dataclass(frozen=True)
class Passage:
    """A document, or a passage of a long one.

    Attributes:
        split: what it is for.
        ends_run: whether an end-of-text token follows, since the document ends or its next passage is of the other
            split.
        ends_document: whether the document ends.
        source: the file it is from.
    """

    text: str
    split: Split
    ends_run: bool
    ends_document: bool
    source: str


def split_documents(chunks: Iterable[Chunk], train_fraction: float, source: str = "") -> Iterator[Passage]:
    """Documents in chunks, cut and split."""
    held: str | None = None  # a passage that waits for the next one
    offset, number = 0.0, 0
    for text, last, short in cut_passages(chunks):
        if short:
            yield Passage(text, "val" if hash_to_fraction(text) >= train_fraction else "train", True, True, source)
            continue
        if held is None:
            offset, number = hash_to_fraction(text), 0
        else:
            now, then = (_choose_split(n, offset, train_fraction) for n in (number - 1, number))
            yield Passage(held, now, now != then, False, source)
        number += 1
        held = text
        if last:
            yield Passage(held, _choose_split(number - 1, offset, train_fraction), True, True, source)
            held = None


def _choose_split(number: int, offset: float, train_fraction: float) -> Split:
    """The split of a passage by its number, so that every stretch of passages has its share of validation."""
    rate = 1 - train_fraction
    return "val" if math.floor((number + 1) * rate + offset) > math.floor(number * rate + offset) else "train"


def hash_to_fraction(text: str) -> float:
    """A number from 0 to 1 that the text's SHA-256 decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def cut_passages(chunks: Iterable[Chunk]) -> Iterator[tuple[str, bool, bool]]:
    """Documents in chunks as their texts, long ones in passages: text, whether it is the last, whether it is all."""
    buffer, long = "", False
    for chunk, last in chunks:
        buffer += chunk
        long = long or len(buffer) > LONG_DOCUMENT
        start = 0
        while long and len(buffer) - start > 2 * MAX_PASSAGE:  # what is left is never a stump
            end = _find_cut(buffer, start)
            yield buffer[start:end], False, False
            start = end
        buffer = buffer[start:]
        if last:
            yield buffer, True, not long
            buffer, long = "", False


def _find_cut(text: str, start: int) -> int:
    """Where to end the passage that begins at `start`: before the blank between two words, if there is one.

    There every tokenizer ends a token, so that the passages' tokens, together, are those of the document.
    """
    low, high = start + MAX_PASSAGE // 2, start + MAX_PASSAGE
    end = text.rfind(" ", low, high)
    while end >= 0 and not (text[end - 1].isalpha() and text[end + 1].isalpha()):
        end = text.rfind(" ", low, end)
    if end < 0:
        end = text.rfind("\n", low, high) + 1
    return end if end > low else high


def batch_passages(documents: Iterable[Passage], characters: int) -> Iterator[list[Passage]]:
    """The pieces, in lists of about so many characters, each of them whole pieces."""
    found: list[Passage] = []
    count = 0
    for piece in documents:
        found.append(piece)
        count += len(piece.text)
        if count >= characters:
            yield found
            found, count = [], 0
    if found:
        yield found

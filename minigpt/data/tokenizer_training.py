"""Tokenizers for a corpus that is read as a stream: every character counted, or pieces learned from a sample of it."""

import zlib
from collections.abc import Iterable

import numpy as np

from minigpt.config import TokenizerKind
from minigpt.data.document_split import Passage
from minigpt.data.encoding import CODE_POINTS, to_code_points
from minigpt.errors import DataError
from minigpt.tokenizers.base import END_OF_TEXT, Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import UNKNOWN, CharTokenizer
from minigpt.tokenizers.loading import load_gpt2_tokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

SAMPLE = 2**24  # characters that pieces are learned from, at most
BLOCK = 2**20  # characters counted at a time


def train_on_stream(
    kind: TokenizerKind, vocab_size: int, documents: Iterable[Passage], min_count: int | None
) -> Tokenizer:
    """A tokenizer of that kind with an end-of-text token: characters of all documents, pieces of training ones.

    Raises DataError and ConfigError as the kinds do.
    """
    if kind == "gpt2":
        return load_gpt2_tokenizer()
    if kind == "char":
        return build_char_tokenizer(documents, min_count)
    text = (END_OF_TEXT if kind == "bpe" else "\n").join(sample_texts(documents))
    if not text:
        raise DataError("there is no document to learn a vocabulary from: name more files")
    if kind == "bpe":
        return BPETokenizer.train(text, vocab_size, [END_OF_TEXT])
    return SentencePieceTokenizer.train(text, vocab_size, end_of_text=True)


def build_char_tokenizer(documents: Iterable[Passage], min_count: int | None = None) -> CharTokenizer:
    """The characters of all documents; with `min_count` those that occur so often, the rest by one unknown sign."""
    counts = np.zeros(CODE_POINTS, np.int64)
    held: list[str] = []
    waiting = 0
    for piece in documents:
        held.append(piece.text)
        waiting += len(piece.text)
        if waiting >= BLOCK:
            counts += np.bincount(to_code_points("".join(held)), minlength=CODE_POINTS)
            held, waiting = [], 0
    counts += np.bincount(to_code_points("".join(held)), minlength=CODE_POINTS)
    kept = {chr(i) for i in np.flatnonzero(counts >= (min_count or 1))}
    if len(kept) < 2:
        few = "fewer than two different characters"
        often = f" that occur {min_count:,} times: lower --min-count" if min_count else ": name more files"
        raise DataError(f"the documents have {few}{often}")
    unknown = None if min_count is None else UNKNOWN
    return CharTokenizer(sorted(kept | {UNKNOWN} if unknown else kept), [END_OF_TEXT], unknown)


def sample_texts(documents: Iterable[Passage], characters: int = SAMPLE) -> list[str]:
    """Texts of training pieces, in order: all, or at most so many characters of them.

    Which they are a CRC-32 of each text and its number decides: it must be below a threshold, which is halved whenever
    there are too many. So one pass will do, and memory stays bounded.
    """
    kept: list[tuple[int, str]] = []
    threshold, count = 2**32, 0
    for n, piece in enumerate(documents):
        number = zlib.crc32(piece.text.encode(), n)  # so that copies of one text are not in or out together
        if piece.split == "val" or number >= threshold:
            continue
        kept.append((number, piece.text))
        count += len(piece.text)
        while count > characters and len(kept) > 1:
            threshold //= 2
            kept = [(number, text) for number, text in kept if number < threshold]
            count = sum(len(text) for _, text in kept)
    return [text for _, text in kept]

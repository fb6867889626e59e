"""The protocol that every tokenizer follows, and what works with any of them."""

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, Self

from minigpt.config import TokenizerKind

MAX_TOKENIZER_BYTES = 24 * 2**20  # bytes of a tokenizer's file; a character tokenizer with all of Unicode takes 17 MB
END_OF_TEXT = "<|endoftext|>"
_END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>")  # the names in GPT-2, Llama 3 and T5


class Tokenizer(Protocol):
    """Converts text to token ids and back.

    Attributes:
        kind: the value of the setting `tokenizer` that stands for this class.
    """

    kind: TokenizerKind

    @property
    def vocab_size(self) -> int:
        """The number of tokens; ids run from 0 to vocab_size - 1."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The ids of tokens that `encode` never returns for ordinary text, such as `<|endoftext|>`."""

    def encode(self, text: str) -> list[int]:
        """Convert text to token ids."""

    def decode(self, ids: Iterable[int]) -> str:
        """Convert token ids to text, special tokens to their names: `decode(encode(text)) == text`."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Convert token ids to UTF-8 bytes; a token may be part of a character, so the bytes may end within one."""

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""

    def save(self, path: Path | str) -> None:
        """Write the tokenizer to a file."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a tokenizer from a file that `save` wrote."""


def decode_stream(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Decode token ids one by one.

    A character may take several tokens. It is yielded with the last of them, so the pieces together are
    `decode(ids)`. Decoding each token alone would turn every part of the character into U+FFFD.

    Args:
        tokenizer: the tokenizer.
        ids: the token ids, which are read as the text is asked for.

    Yields:
        Pieces of the text; none is empty.

    Raises:
        DataError: an id is not a token.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for i in ids:
        if piece := decoder.decode(tokenizer.decode_bytes([i])):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece


def find_end_of_text(tokenizer: Tokenizer) -> int | None:
    """Return the id of the token between two documents, under any of its usual names; None if there is none."""
    special = tokenizer.special_tokens
    return next((special[name] for name in _END_OF_TEXT_NAMES if name in special), None)


def compute_fingerprint(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of the tokenizer's file, in hexadecimal: equal tokenizers have equal fingerprints."""
    return hashlib.sha256(tokenizer.to_bytes()).hexdigest()

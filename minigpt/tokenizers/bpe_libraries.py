"""The libraries that encode large texts instead of our Python: gigatoken where it is installed, else tiktoken.

A library is used only if its ids are ours. They are compared on `HARD_CASES`, on the names of special tokens as
ordinary text, and on the beginning of the first text. A text that the library cannot encode is left to Python.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from minigpt.tokenizers.code_points import has_known_characters
from minigpt.tokenizers.gigatoken_adapter import GigatokenEncoder
from minigpt.tokenizers.tiktoken_adapter import TiktokenEncoder

HARD_CASES = (
    "white space  a\t\tb \n c\n\n\n  d \r\n\r\n  e\rf \x0b\x0c\x1c\x85g\u00a0h\u1680\u2003i\u2028j\u3000\u3000k  ",
    "1 12 123 1234567 3.14 1,000 x2y3 ½²Ⅷ٣٤",
    "don't DON'T 'twas I'll we'Ve they'RE 's''d 'ſ a'b",
    "é e\u0301 ß İ K ǅ 日本語 한글 кот नमस्ते",
    "👍🏽 👩‍👩‍👧 🙂🙂 a\u200db\ufeffc\u200bd",
    "_a__b... --- ''' !?\r\n)(\n[] </p>\n\n",
    "",
)
_SAMPLE_CHARACTERS = 2**15  # Python encodes so many in some 30 ms
logger = logging.getLogger(__name__)


class Library(Protocol):
    """A library that encodes texts, set up for one vocabulary. Several threads may share it.

    Attributes:
        name: the name of its package.
    """

    name: str

    def can_encode(self, text: str) -> bool:
        """Return True if the library is fast for a text whose characters it knows."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, (N,), uint32. Other threads can run meanwhile."""


BuildLibrary = Callable[[Sequence[tuple[bytes, bytes]], Mapping[int, bytes], str], Library | None]
LIBRARIES: dict[str, BuildLibrary] = {"gigatoken": GigatokenEncoder.build, "tiktoken": TiktokenEncoder.build}


class LibraryEncoder:
    """Encodes texts by the first library that returns our ids, or in Python.

    Attributes:
        library: the library; None if none is installed that returns our ids.
    """

    def __init__(
        self,
        merges: Sequence[tuple[bytes, bytes]],
        vocab: Mapping[int, bytes],
        pattern: str,
        encode_in_python: Callable[[str], list[int]],
        special_tokens: Iterable[str],
        libraries: Iterable[BuildLibrary],
    ) -> None:
        """Set up a library.

        Args:
            merges: pairs of tokens, in the order learned.
            vocab: the bytes of each token, by id, without special tokens.
            pattern: a key of `PATTERNS`.
            encode_in_python: our function, with which the ids are compared.
            special_tokens: the names of the special tokens.
            libraries: the functions that set libraries up, such as those in `LIBRARIES`. They are tried in this order.
        """
        self._arguments = (merges, vocab, pattern)
        self._encode_in_python, self._remaining = encode_in_python, list(libraries)
        self._hard_cases = [*HARD_CASES, " ".join(special_tokens)]
        self._lock, self._has_compared_text = threading.Lock(), False
        self.library = self._set_up_next()

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, (N,), uint32.

        Raises:
            DataError: a text has half a surrogate pair.
        """
        with self._lock:
            if texts and not self._has_compared_text:
                self._compare("".join(texts)[:_SAMPLE_CHARACTERS])
        library = self.library
        can_encode = [library is not None and _can_encode(library, text) for text in texts]
        chosen = list(itertools.compress(texts, can_encode))
        encoded = iter(library.encode(chosen) if library and chosen else [])
        return [
            next(encoded) if is_chosen else np.array(self._encode_in_python(text), np.uint32)
            for text, is_chosen in zip(texts, can_encode, strict=True)
        ]

    def _compare(self, sample: str) -> None:
        """Change to the next library until one returns our ids of the beginning of a text."""
        self._has_compared_text = True
        while self.library and not self._returns_our_ids(self.library, [sample]):
            self.library = self._set_up_next()

    def _set_up_next(self) -> Library | None:
        """Return the next library that is installed and returns our ids of the hard cases, or None."""
        while self._remaining:
            library = self._remaining.pop(0)(*self._arguments)
            if library and self._returns_our_ids(library, self._hard_cases):
                logger.info(f"large texts are encoded by {library.name}, with the same merges")
                return library
        return None

    def _returns_our_ids(self, library: Library, texts: Sequence[str]) -> bool:
        """Return True if a library returns the ids that Python does, for those texts that it can encode."""
        texts = [text for text in texts if _can_encode(library, text)]
        expected = [self._encode_in_python(text) for text in texts]
        return [ids.tolist() for ids in library.encode(texts)] == expected


def _can_encode(library: Library, text: str) -> bool:
    return has_known_characters(text) and library.can_encode(text)

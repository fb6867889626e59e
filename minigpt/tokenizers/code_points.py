"""The characters of a text as numbers."""

import functools
import unicodedata

import numpy as np

CODE_POINTS = 0x110000  # the number of Unicode code points
_NOT_ASSIGNED, _HALF_A_PAIR = "Cn", "Cs"  # categories


def to_code_points(text: str) -> np.ndarray:
    """Return the characters of a text as numbers: (len(text),), uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def has_known_characters(text: str) -> bool:
    """Return True if Python's version of Unicode has every character, and none is half a surrogate pair.

    Libraries with a later version of Unicode agree on these characters. About newer ones they may disagree: for one a
    character is a letter, for another it is not.
    """
    return text.isascii() or bool(_list_known()[to_code_points(text)].all())


@functools.cache
def _list_known() -> np.ndarray:
    """Return for each code point whether it is known: (CODE_POINTS,), bool."""
    unknown = (_NOT_ASSIGNED, _HALF_A_PAIR)
    return np.array([unicodedata.category(chr(i)) not in unknown for i in range(CODE_POINTS)])

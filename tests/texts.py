"""Texts for the tests of tokenizers."""

import functools
import random
import unicodedata
from pathlib import Path

COMMON = " \n\r\t\u00a0\u3000\x1c\x85'sSſdDlLvVeErR019.,!?-_aàéßñ漢字かなカナ한글👍🏽👩‍👩‍👧‍👦e\u0301\u200d\u2028"


@functools.cache
def list_assigned_characters() -> list[str]:
    """Return the characters of Unicode 14, which all regex engines know. Finding them takes a second."""
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    return [character for character in characters if unicodedata.category(character) not in ("Cn", "Co")]


def random_text(rng: random.Random, length: int) -> str:
    """Return random Unicode text, rich in what the split patterns distinguish and in repeated characters."""
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        kind = rng.random()
        if kind < 0.5:
            parts.append("".join(rng.choices(COMMON, k=rng.randint(1, 12))))
        elif kind < 0.8:
            parts.append("".join(rng.choices(list_assigned_characters(), k=rng.randint(1, 8))))
        elif kind < 0.9:
            parts.append(rng.choice(COMMON) * rng.randint(1, 40))
        else:
            parts.append(rng.choice(["don't", "I'LL", "they've", " the", "123456", "  x", "\r\n\r\n"]))
    return "".join(parts)


PROSE = (
    Path(__file__).parent / "prose.txt"
).read_text()  # a part of docs/log.md as it was once, and a note with all of ASCII

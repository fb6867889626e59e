"""Texts for the tests of tokenizers."""

import random
import unicodedata
from pathlib import Path

ASSIGNED = [  # characters of Unicode 14, which all regex engines know
    chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000 and unicodedata.category(chr(i)) not in ("Cn", "Co")
]
COMMON = " \n\r\t\u00a0\u3000\x1c\x85'sSſdDlLvVeErR019.,!?-_aàéßñ漢字かなカナ한글👍🏽👩‍👩‍👧‍👦e\u0301\u200d\u2028"


def random_text(rng: random.Random, length: int) -> str:
    """Return random Unicode text, rich in what the split patterns distinguish and in repeated characters."""
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        kind = rng.random()
        if kind < 0.5:
            parts.append("".join(rng.choices(COMMON, k=rng.randint(1, 12))))
        elif kind < 0.8:
            parts.append("".join(rng.choices(ASSIGNED, k=rng.randint(1, 8))))
        elif kind < 0.9:
            parts.append(rng.choice(COMMON) * rng.randint(1, 40))
        else:
            parts.append(rng.choice(["don't", "I'LL", "they've", " the", "123456", "  x", "\r\n\r\n"]))
    return "".join(parts)


PROSE = (
    Path(__file__).parent / "prose.txt"
).read_text()  # a part of docs/log.md as it was once, and a note with all of ASCII

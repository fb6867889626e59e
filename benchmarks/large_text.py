"""Large texts out of a small one, for benchmarks that need many megabytes."""

import random

_CHANGED = 50  # one word in so many is replaced


def make_documents(text: str, copies: int, seed: int = 0) -> list[str]:
    """Return copies of a text. Each begins at another word, and one word in fifty is replaced by a new one.

    The new words keep an encoder from having seen every word before, as in a text of that size.
    """
    rng = random.Random(seed)
    words = text.split(" ")
    documents = []
    for _ in range(copies):
        start = rng.randrange(len(words))
        copy = words[start:] + words[:start]
        for _ in range(len(copy) // _CHANGED):
            i = rng.randrange(len(copy))
            copy[i] = copy[i][::-1] if rng.random() < 0.5 else f"{copy[i]}{rng.randrange(10**4)}"
        documents.append(" ".join(copy))
    return documents

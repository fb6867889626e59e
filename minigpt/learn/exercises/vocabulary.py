"""Exercise 1: text becomes numbers."""

from typing import Any

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.outcomes import name_parts

TEXT = """
A model computes with numbers, so text must become numbers. The simplest way gives each different character a number,
its id. The vocabulary is the list of all different characters, in sorted order.

    text   h e l l o            vocabulary   e h l o
    ids    1 0 2 2 3            ids          0 1 2 3

`stoi` ("string to index") maps a character to its id. `itos` ("index to string") maps the id back. `encode` turns a
text into a list of ids, and `decode` turns the ids into the same text again. Capital letters, blanks and line ends are
characters like all others.
"""

EXPERIMENT = """
text = "hello, world"
stoi, itos = build_vocabulary(text)
print("vocabulary:", stoi)
ids = encode("hold", stoi)
print("encode('hold') =", ids)
print("decode gives back", repr(decode(ids, itos)))
"""


def build_vocabulary(text: str) -> tuple[dict[str, int], dict[int, str]]:
    """Number the different characters of a text, in sorted order, from 0.

    Args:
        text: any text.

    Returns:
        stoi, the id of each character, and itos, the character of each id.
    """
    characters = sorted(set(text))
    stoi = {character: i for i, character in enumerate(characters)}
    itos = dict(enumerate(characters))
    return stoi, itos


def encode(text: str, stoi: dict[str, int]) -> list[int]:
    """Return the id of each character of a text."""
    return [stoi[character] for character in text]


def decode(ids: list[int], itos: dict[int, str]) -> str:
    """Return the text that the ids stand for."""
    return "".join(itos[i] for i in ids)


def _from_one(text: str) -> Any:
    characters = sorted(set(text))
    return {c: i + 1 for i, c in enumerate(characters)}, {i + 1: c for i, c in enumerate(characters)}


def _in_order_of_appearance(text: str) -> Any:
    characters = list(dict.fromkeys(text))
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


def _with_duplicates(text: str) -> Any:
    characters = sorted(text)
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


def _twice_the_same(text: str) -> Any:
    stoi, _ = build_vocabulary(text)
    return stoi, stoi


def _swapped(text: str) -> Any:
    return build_vocabulary(text)[::-1]


def _in_order_of_a_set(text: str) -> Any:
    characters = list(set(text))
    return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))


def _of_words(text: str) -> Any:
    words = sorted(set(text.split()))
    return {word: i for i, word in enumerate(words)}, dict(enumerate(words))


def _of_letters(text: str) -> Any:
    return build_vocabulary(text.lower())


def _by_code(text: str) -> Any:
    return {c: ord(c) for c in text}, {ord(c): c for c in text}


def _without_blanks(text: str) -> Any:
    return build_vocabulary(text.replace(" ", ""))


def _make_vocabulary_case(text: str) -> Case:
    """Return a case that names the two dicts."""
    return Case(
        f"build_vocabulary({text!r})",
        lambda my: name_parts("build_vocabulary", my.build_vocabulary(text), "stoi", "itos"),
    )


STOI, ITOS = build_vocabulary("hello, world")

EXERCISE = Exercise(
    text=TEXT,
    references=(build_vocabulary, encode, decode),
    cases=(
        *(_make_vocabulary_case(text) for text in ("ba", "hello, world", "Ab a", "")),
        Case("encode('ow', stoi)", lambda my: my.encode("ow", STOI)),
        Case("encode('hello', stoi)", lambda my: my.encode("hello", STOI)),
        Case("encode('', stoi)", lambda my: my.encode("", STOI)),
        Case("decode([3, 2], itos)", lambda my: my.decode([3, 2], ITOS)),
        Case("decode([], itos)", lambda my: my.decode([], ITOS)),
        Case("decode(encode('world', stoi), itos)", lambda my: my.decode(my.encode("world", STOI), ITOS)),
    ),
    mistakes=(
        Mistake("the ids start at 1 instead of 0", {"build_vocabulary": _from_one}),
        Mistake("the characters are not sorted", {"build_vocabulary": _in_order_of_appearance}),
        Mistake(
            "the characters are in the order of a set, which is another each time: sorted() is missing",
            {"build_vocabulary": _in_order_of_a_set},
        ),
        Mistake("words are numbered instead of characters", {"build_vocabulary": _of_words}),
        Mistake("the text is changed to small letters first", {"build_vocabulary": _of_letters}),
        Mistake("ord() numbers the characters: the ids must be 0, 1, 2 and so on", {"build_vocabulary": _by_code}),
        Mistake("blanks are left out: a blank is a character too", {"build_vocabulary": _without_blanks}),
        Mistake("a character that occurs twice gets two ids: set() is missing", {"build_vocabulary": _with_duplicates}),
        Mistake(
            "itos maps characters to ids, as stoi does, instead of ids to characters",
            {"build_vocabulary": _twice_the_same},
        ),
        Mistake("stoi and itos are returned in the wrong order", {"build_vocabulary": _swapped}),
        Mistake("decode returns a list of characters instead of a string", {"decode": lambda i, t: [t[n] for n in i]}),
        Mistake("decode puts spaces between the characters", {"decode": lambda i, t: " ".join(t[n] for n in i)}),
        Mistake(
            "encode returns each character once: the ids of a set, not of the text",
            {"encode": lambda text, stoi: sorted({stoi[c] for c in text})},
        ),
        Mistake(
            "encode makes a vocabulary of its own text, and does not use the stoi that it is given",
            {"encode": lambda text, stoi: encode(text, build_vocabulary(text)[0])},
        ),
        Mistake(
            "encode returns inside its loop, so after the first character",
            {"encode": lambda text, stoi: encode(text, stoi)[:1] or None},
        ),
        Mistake("decode builds the text backwards", {"decode": lambda ids, itos: decode(ids[::-1], itos)}),
        Mistake(
            'decode turns the list into a string with str(): "".join() is needed',
            {"decode": lambda ids, itos: str([itos[i] for i in ids])},
        ),
    ),
    hints=(
        "set(text) has each character once, and sorted(...) makes a list of it in order.",
        "enumerate(characters) gives pairs (0, first), (1, second), ... A dict comprehension makes a dict of them: "
        "{character: i for i, character in enumerate(characters)}.",
        'encode is [stoi[character] for character in text]. decode joins characters: "".join(...).',
    ),
    experiment=EXPERIMENT,
)

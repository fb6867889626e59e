"""Exercise 1: text becomes numbers."""

from typing import Any

from minigpt.learn.exercise import Case, Exercise, Mistake

TEXT = """
A model computes with numbers, so text must become numbers. The simplest way gives each different character a number,
its id. The vocabulary is the list of all different characters, in sorted order.

    text   h e l l o            vocabulary   e h l o
    ids    1 0 2 2 3            ids          0 1 2 3

`stoi` ("string to index") maps a character to its id. `itos` ("index to string") maps the id back. `encode` turns a
text into a list of ids, and `decode` turns the ids into the same text again.
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


STOI, ITOS = build_vocabulary("hello, world")

EXERCISE = Exercise(
    text=TEXT,
    references=(build_vocabulary, encode, decode),
    cases=(
        Case("build_vocabulary('ba')", lambda my: my.build_vocabulary("ba")),
        Case("build_vocabulary('hello, world')", lambda my: my.build_vocabulary("hello, world")),
        Case("build_vocabulary('')", lambda my: my.build_vocabulary("")),
        Case("encode('ow', stoi)", lambda my: my.encode("ow", STOI)),
        Case("encode('', stoi)", lambda my: my.encode("", STOI)),
        Case("decode([3, 2], itos)", lambda my: my.decode([3, 2], ITOS)),
        Case("decode([], itos)", lambda my: my.decode([], ITOS)),
        Case("decode(encode('world', stoi), itos)", lambda my: my.decode(my.encode("world", STOI), ITOS)),
    ),
    mistakes=(
        Mistake("the ids start at 1 instead of 0", {"build_vocabulary": _from_one}),
        Mistake("the characters are not sorted", {"build_vocabulary": _in_order_of_appearance}),
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
    ),
    hints=(
        "set(text) has each character once, and sorted(...) makes a list of it in order.",
        "enumerate(characters) gives pairs (0, first), (1, second), ... A dict comprehension makes a dict of them: "
        "{character: i for i, character in enumerate(characters)}.",
        'encode is [stoi[character] for character in text]. decode joins characters: "".join(...).',
    ),
    experiment=EXPERIMENT,
)

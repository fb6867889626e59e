"""Tokens that are not made by merges: special tokens, and words that were added to a vocabulary after its training.

A text is split at added words before it is cut into pieces, as Hugging Face's tokenizers does. `<|endoftext|>` is
special: only a caller that asks for it splits a text at it.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import regex

from minigpt.errors import DataError
from minigpt.tokenizers.byte_level import token_to_text

_WAY_OUT = "choose another, such as '<|endoftext|>'"


@dataclass(frozen=True)
class AddedToken:
    """A word that was added to a vocabulary. It is not special: every text is split at it.

    Attributes:
        text: the word.
        id: its id, which may be that of a merged token that reads the same.
        normalized: True if it is in the second group of `group_by_priority`.
    """

    text: str
    id: int
    normalized: bool


def group_by_priority(tokens: Iterable[AddedToken]) -> list[dict[str, int]]:
    """Return two groups of words with their ids: a text is split at the first group, then its parts at the second."""
    groups: list[dict[str, int]] = [{}, {}]
    for token in tokens:
        groups[token.normalized][token.text] = token.id
    return groups


def encode_between(text: str, groups: Sequence[Mapping[str, int]], encode: Callable[[str], list[int]]) -> list[int]:
    """Split a text at the words of the first group, its parts at those of the next, and so on.

    Args:
        text: the text.
        groups: the ids of words.
        encode: encodes what is between the words.
    """
    if not groups:
        return encode(text)
    ids: list[int] = []
    for n, part in enumerate(split_at(text, groups[0])):
        ids += [groups[0][part]] if n % 2 else encode_between(part, groups[1:], encode)
    return ids


def split_at(text: str, names: Iterable[str]) -> list[str]:
    """Split a text at names, preferring longer ones: every second part is a name."""
    return _compile_names(frozenset(names)).split(text) if names else [text]


@functools.lru_cache(maxsize=8)
def _compile_names(names: frozenset[str]) -> "regex.Pattern[str]":
    return regex.compile(r"(\L<names>)", names=names)


def require_distinct(special_tokens: Iterable[str], added: Sequence[AddedToken], ids: Mapping[bytes, int]) -> None:
    """Raise DataError unless special tokens and added words are different, not empty, and read like no other token.

    Args:
        special_tokens: the names of the special tokens.
        added: the added words; one may have the id of a token that reads the same.
        ids: the ids of bytes and merged tokens.
    """
    ordinary = {token_to_text(token): i for token, i in ids.items()}
    seen: set[str] = set()
    for name in special_tokens:
        _require_new(name, seen, "special token")
        if name in ordinary:
            raise DataError(f"the special token {name!r} is an ordinary token too: {_WAY_OUT}")
    for token in added:
        _require_new(token.text, seen, "added token")
        if token.text in ordinary and (ordinary[token.text] != token.id or ids.get(token.text.encode()) != token.id):
            raise DataError(f"the added token {token.text!r} and an ordinary token of that name differ: {_WAY_OUT}")


def _require_new(name: str, seen: set[str], kind: str) -> None:
    """Raise DataError for a name that is empty, not UTF-8, or among those seen; it joins them."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"the {kind} {name!r} is not UTF-8: choose another") from None
    if not name or name in seen:
        raise DataError(f"the {kind} {name!r} {'is named twice' if name else 'is empty'}: {_WAY_OUT}")
    seen.add(name)

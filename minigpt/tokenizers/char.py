"""The simplest tokenizer: a token is one character."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from minigpt.config import TokenizerKind
from minigpt.errors import DataError, FileError, UnknownCharacterError
from minigpt.system.files import read_bytes, write_atomic
from minigpt.tokenizers.base import LARGEST_FILE

FORMAT = 1
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class CharTokenizer:
    """One token a character (a Unicode code point), numbered in sorted order.

    Attributes:
        stoi: character to id ("string to index").
        itos: id to character ("index to string").
        special_tokens: tokens that are no character of a text, after all others, and their ids.
        unknown: the character that stands for those outside the vocabulary; None, and they are refused.

    >>> tokenizer = CharTokenizer.from_text("hello")
    >>> tokenizer.stoi
    {'e': 0, 'h': 1, 'l': 2, 'o': 3}
    >>> tokenizer.encode("hole")
    [1, 3, 2, 0]
    >>> tokenizer.decode([1, 3, 2, 0])
    'hole'
    """

    kind: TokenizerKind = "char"

    def __init__(
        self, characters: Iterable[str], special_tokens: Sequence[str] = (), unknown: str | None = None
    ) -> None:
        self.stoi: dict[str, int] = {character: i for i, character in enumerate(characters)}
        self.itos: dict[int, str] = {i: character for character, i in self.stoi.items()}
        self.special_tokens = {name: len(self.stoi) + i for i, name in enumerate(special_tokens)}
        self.unknown = unknown
        self._names = self.itos | {i: name for name, i in self.special_tokens.items()}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The vocabulary of a text: each distinct character in it. Raises DataError for an empty text."""
        if not text:
            raise DataError("the text is empty: a vocabulary needs at least one character")
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        """How many different characters, and special tokens, there are."""
        return len(self._names)

    def encode(self, text: str) -> list[int]:
        """One id for each character. Raises UnknownCharacterError for one outside a vocabulary without unknown sign."""
        if self.unknown is not None:
            unknown = self.stoi[self.unknown]
            return [self.stoi.get(character, unknown) for character in text]
        try:
            return [self.stoi[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in self.stoi)
            raise UnknownCharacterError(text[position], position, self.vocab_size) from None

    def decode(self, ids: Iterable[int]) -> str:
        """One character, or special token's name, for each id. Raises DataError for one outside 0..vocab_size - 1."""
        ids = [int(i) for i in ids]
        try:
            return "".join([self._names[i] for i in ids])
        except KeyError as error:
            raise DataError(f"the id {error} is not a token: ids run from 0 to {self.vocab_size - 1}") from None

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The same in UTF-8."""
        return self.decode(ids).encode()

    def to_bytes(self) -> bytes:
        """The vocabulary as JSON."""
        content = {"format": FORMAT, "kind": "char", "characters": list(self.stoi)}
        if self.special_tokens:
            content["special_tokens"] = list(self.special_tokens)
        if self.unknown is not None:
            content["unknown"] = self.unknown
        return json.dumps(content).encode()

    def save(self, path: Path | str) -> None:
        """Write the vocabulary as JSON, all or nothing. Raises FileError."""
        write_atomic(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote. Raises FileError for a file that cannot be read or is anything else."""
        try:
            content: Any = json.loads(read_bytes(path, LARGEST_FILE))
        except (ValueError, RecursionError) as error:
            raise FileError(f"{str(path)!r} is not a tokenizer: it is not JSON ({error})") from None
        if not isinstance(content, dict) or (content.get("format"), content.get("kind")) != (FORMAT, "char"):
            raise FileError(f"{str(path)!r} is not a character tokenizer of format {FORMAT}: another version wrote it")
        characters = content.get("characters")
        if not isinstance(characters, list) or not all(isinstance(c, str) and len(c) == 1 for c in characters):
            raise FileError(f"{str(path)!r} is damaged: 'characters' must be a list of single characters")
        if not characters or len(set(characters)) != len(characters):
            raise FileError(f"{str(path)!r} is damaged: its list of characters is empty or repeats one")
        special, unknown = content.get("special_tokens", []), content.get("unknown")
        if not isinstance(special, list) or not all(isinstance(name, str) and len(name) > 1 for name in special):
            raise FileError(f"{str(path)!r} is damaged: 'special_tokens' must be a list of names")
        if len(set(special)) != len(special) or not (unknown is None or unknown in characters):
            raise FileError(f"{str(path)!r} is damaged: a special token is repeated, or 'unknown' is no character")
        try:
            "".join([*characters, *special]).encode()
        except UnicodeEncodeError:
            raise FileError(
                f"{str(path)!r} is damaged: it has half of a surrogate pair, which is no character"
            ) from None
        return cls(characters, special, unknown)

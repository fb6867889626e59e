"""The simplest tokenizer: a token is one character."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from minigpt.config import TokenizerKind
from minigpt.errors import DataError, FileError, UnknownCharacterError
from minigpt.system.files import read_bytes, write_atomic
from minigpt.system.text_encoding import require_text
from minigpt.tokenizers.base import MAX_TOKENIZER_BYTES

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_FORMAT = 1


class CharTokenizer:
    """A tokenizer with one token for each character (Unicode code point), numbered in sorted order.

    Attributes:
        stoi: the id of each character ("string to index").
        itos: the character of each id ("index to string").
        special_tokens: the ids of the special tokens, which come after those of the characters.
        unknown: the character that replaces characters outside the vocabulary. Without one, `encode` refuses them.

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
        """Number the characters and the special tokens.

        Args:
            characters: the vocabulary, in the order of the ids.
            special_tokens: names of tokens that are not part of any text.
            unknown: one of `characters`, or None.
        """
        self.stoi: dict[str, int] = {character: i for i, character in enumerate(characters)}
        self.itos: dict[int, str] = {i: character for character, i in self.stoi.items()}
        self.special_tokens = {name: len(self.stoi) + i for i, name in enumerate(special_tokens)}
        self.unknown = unknown
        self._names = self.itos | {i: name for name, i in self.special_tokens.items()}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Make a tokenizer of all characters that occur in a text.

        Raises:
            DataError: the text is empty, or is the name of a file.
        """
        require_text(text, "read it first, Path({name}).read_text()")
        if not text:
            raise DataError("the text is empty: a vocabulary needs at least one character")
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        """The number of characters and special tokens."""
        return len(self._names)

    def encode(self, text: str) -> list[int]:
        """Convert text to ids, one for each character.

        Raises:
            UnknownCharacterError: a character is not in the vocabulary, and there is no `unknown` to replace it.
        """
        if self.unknown is not None:
            unknown = self.stoi[self.unknown]
            return [self.stoi.get(character, unknown) for character in text]
        try:
            return [self.stoi[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in self.stoi)
            raise UnknownCharacterError(text[position], position, self.vocab_size) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Convert ids to text, special tokens to their names. Raise DataError for an id that is not a token."""
        ids = [int(i) for i in ids]
        try:
            return "".join([self._names[i] for i in ids])
        except KeyError as error:
            raise DataError(f"the id {error} is not a token: ids run from 0 to {self.vocab_size - 1}") from None

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Convert ids to text in UTF-8. Raise DataError as `decode` does."""
        return self.decode(ids).encode()

    def to_bytes(self) -> bytes:
        """Return the vocabulary as JSON."""
        content: dict[str, Any] = {"format": _FORMAT, "kind": self.kind, "characters": list(self.stoi)}
        if self.special_tokens:
            content["special_tokens"] = list(self.special_tokens)
        if self.unknown is not None:
            content["unknown"] = self.unknown
        return json.dumps(content).encode()

    def save(self, path: Path | str) -> None:
        """Write the vocabulary as JSON, all or nothing. Raise FileError."""
        write_atomic(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file that `save` wrote.

        Raises:
            FileError: the file cannot be read, or is not a character tokenizer.
        """
        try:
            content: Any = json.loads(read_bytes(path, MAX_TOKENIZER_BYTES))
        except (ValueError, RecursionError) as error:
            raise FileError(f"{str(path)!r} is not a tokenizer: it is not JSON ({error})") from None
        if not isinstance(content, dict) or (content.get("format"), content.get("kind")) != (_FORMAT, cls.kind):
            raise FileError(f"{str(path)!r} is not a character tokenizer of format {_FORMAT}: another version wrote it")
        characters = content.get("characters")
        if not isinstance(characters, list) or not all(isinstance(c, str) and len(c) == 1 for c in characters):
            raise FileError(f"{str(path)!r} is damaged: 'characters' must be a list of single characters")
        if not characters or len(set(characters)) != len(characters):
            raise FileError(f"{str(path)!r} is damaged: its list of characters is empty or repeats one")
        special, unknown = content.get("special_tokens", []), content.get("unknown")
        if not isinstance(special, list) or not all(isinstance(name, str) and len(name) > 1 for name in special):
            raise FileError(f"{str(path)!r} is damaged: 'special_tokens' must be a list of names")
        if len(set(special)) != len(special) or not (unknown is None or unknown in characters):
            raise FileError(f"{str(path)!r} is damaged: a special token is repeated, or 'unknown' is not a character")
        try:
            "".join([*characters, *special]).encode()
        except UnicodeEncodeError:
            raise FileError(f"{str(path)!r} is damaged: it has half a surrogate pair, which is no character") from None
        return cls(characters, special, unknown)

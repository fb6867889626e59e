"""Byte-level byte-pair encoding (BPE) in the open: how GPT-2 and GPT-4 turn text into tokens.

Begin with 256 tokens, one for each byte, so that no text is ever unknown. Cut the text into pieces, roughly words.
Count which two tokens stand side by side most often inside them, make of those two one new token, and do it again
until there are as many tokens as wanted: the pairs, in that order, are the merges. To encode a new text, cut it in
the same way and do the same merges, the earliest first. (Sennrich et al. 2016; over bytes, Radford et al. 2019.)

The plain version is the four functions after this: `count_pairs`, `merge`, `learn_plain` and `encode_plain`. text/
bpe_fast.py finds the same merges and the same ids, faster, and is what `BPETokenizer` uses.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import regex

from minigpt.config import TokenizerKind
from minigpt.errors import ConfigError, DataError
from minigpt.system.files import write_atomic
from minigpt.tokenizers import bpe_fast

Pair = tuple[int, int]
Ids = tuple[int, ...]

# How a text is cut into pieces. GPT-2's pattern is that of its encoder.py. GPT-4's is what tiktoken calls cl100k_base,
# without the possessive quantifiers, which change nothing that it matches and which not every engine reads alike.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s",
}

# The 256 tokens to begin with, in GPT-2's order: first the bytes that are printable characters in Latin-1.
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = [bytes([byte]) for byte in [*PRINTABLE, *sorted({*range(256)} - {*PRINTABLE})]]
ID_OF_BYTE = {token[0]: i for i, token in enumerate(BYTES)}


def count_pairs(words: Mapping[Ids, int]) -> Counter[Pair]:
    """How often each two tokens stand side by side in the words, each of which occurs so many times."""
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def merge(ids: Ids, pair: Pair, new: int) -> Ids:
    """The ids with every occurrence of the pair, from the left, replaced by the new one.

    >>> merge((1, 2, 1, 2, 1), (1, 2), 9)
    (9, 9, 1)
    """
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return tuple(merged)


def learn_plain(words: Mapping[bytes, int], vocab_size: int) -> list[tuple[bytes, bytes]]:
    """The merges that make `vocab_size` tokens, bytes included, or as many as the words allow.

    Of pairs that are equally frequent the one with the smaller ids comes first, as in Hugging Face's trainer.
    """
    tokens = list(BYTES)
    merges = []
    split = {tuple(ID_OF_BYTE[byte] for byte in word): count for word, count in words.items()}
    while len(tokens) < vocab_size:
        counts = count_pairs(split)
        if not counts:
            break
        first, second = pair = min(counts, key=lambda pair: (-counts[pair], pair))
        token = tokens[first] + tokens[second]
        if token not in tokens:  # two ways to the same bytes are one token
            tokens.append(token)
        merges.append((tokens[first], tokens[second]))
        split = {merge(word, pair, tokens.index(token)): count for word, count in split.items()}
    return merges


def encode_plain(ids: Ids, ranks: Mapping[Pair, tuple[int, int]]) -> Ids:
    """A piece of text, as the ids of its bytes, with all merges done; a pair's rank and new id are in `ranks`."""
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: ranks.get(pair, (math.inf, 0)))  # the earliest merge there is
        if pair not in ranks:
            break
        ids = merge(ids, pair, ranks[pair][1])
    return ids


class BPETokenizer:
    """Byte-level BPE.

    Attributes:
        merges: two tokens that become one, in the order learned.
        special_tokens: tokens that no text is ever encoded to unless asked, such as "<|endoftext|>", and their ids.
        pattern: the name of the pattern that cuts a text into pieces.
        vocab: every token's bytes, by id.
        tiktoken_from: how many characters make a text large enough for tiktoken, if it is installed.

    >>> tokenizer = BPETokenizer.train("low low low lower lowest", vocab_size=259)
    >>> tokenizer.merges
    [(b'l', b'o'), (b'lo', b'w'), (b' ', b'low')]
    >>> [tokenizer.vocab[i] for i in tokenizer.encode("a lower low")]
    [b'a', b' low', b'e', b'r', b' low']
    """

    kind: TokenizerKind = "bpe"

    def __init__(
        self,
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Sequence[str] | Mapping[str, int] = (),
        pattern: str = "gpt2",
        ids: Mapping[bytes, int] | None = None,
    ) -> None:
        """Ids are given in order, bytes, merges, special tokens, unless `ids` has those of the bytes and merges.

        Raises ConfigError for an unknown pattern, DataError for merges of what are no tokens, or ids with gaps.
        """
        if pattern not in PATTERNS:
            raise ConfigError(f"there is no pattern '{pattern}': choose from {', '.join(PATTERNS)}")
        self.merges, self.pattern, self.tiktoken_from = list(merges), pattern, bpe_fast.LARGE
        known = {token: i for i, token in enumerate(BYTES)}
        for first, second in self.merges:
            if first not in known or second not in known:
                raise DataError(f"the merge of {first!r} and {second!r} comes before one of them is a token")
            known.setdefault(first + second, len(known))
        if ids is not None:
            if ids.keys() != known.keys():
                stray = min(ids.keys() ^ known.keys())
                raise DataError(f"the token {stray!r} is in only one of vocabulary and merges")
            known = dict(ids)
        require_special(special_tokens, known)
        if not isinstance(special_tokens, Mapping):
            special_tokens = {name: len(known) + i for i, name in enumerate(special_tokens)}
        self.special_tokens = dict(special_tokens)
        self.vocab = {i: token for token, i in known.items()}
        self.vocab |= {i: name.encode() for name, i in self.special_tokens.items()}
        if self.vocab.keys() != set(range(len(known) + len(self.special_tokens))):
            raise DataError("ids must run from 0 without gaps, each for one token")
        self._ids_of_bytes = [known[bytes([byte])] for byte in range(256)]
        self._ranks: dict[Pair, tuple[int, int]] = {}
        for rank, (first, second) in enumerate(self.merges):
            self._ranks.setdefault((known[first], known[second]), (rank, known[first + second]))
        self._encode_piece = functools.lru_cache(maxsize=2**16)(self._merge_piece)

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Sequence[str] = (), pattern: str = "gpt2", processes: int = 1
    ) -> Self:
        """Learn a vocabulary of `vocab_size` tokens, bytes and special tokens included, from a text.

        Special tokens in the text separate documents and are not learned from. Long texts are counted by so many
        processes. Raises ConfigError for a size below that of bytes and special tokens, DataError for one beyond what
        the text has merges for.
        """
        if not text:
            raise DataError("the text is empty: there is nothing to learn a vocabulary from")
        cls([], special_tokens, pattern)  # refuses what cannot be
        room = vocab_size - len(special_tokens)
        if room < len(BYTES):
            least = len(BYTES) + len(special_tokens)
            raise ConfigError(
                f"a byte-level vocabulary has {least} tokens at least, and {vocab_size} is fewer: raise it"
            )
        cut = functools.partial(pieces_between, special_tokens=tuple(special_tokens), pattern=pattern)
        try:
            words = bpe_fast.count_words(text, cut, processes)
        except UnicodeEncodeError as error:
            raise half_a_character(error) from None
        tokenizer = cls(bpe_fast.learn(words, room, BYTES), special_tokens, pattern)
        if tokenizer.vocab_size < vocab_size:
            most = f"{tokenizer.vocab_size:,} tokens at most, not {vocab_size:,}"
            raise DataError(f"the text has merges for {most}: lower the vocabulary's size, or use a longer text")
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are."""
        return len(self.vocab)

    def pieces(self, text: str) -> list[str]:
        """The text cut into pieces, between which nothing is ever merged."""
        return pieces_between(text, (), self.pattern)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Text to token ids. A special token's name in it is text like any other, unless they are allowed.

        Raises DataError for half of a surrogate pair, which no bytes stand for.
        """
        if allow_special and self.special_tokens:
            parts = split_at(text, tuple(self.special_tokens))
            return [i for n, part in enumerate(parts) for i in self._encode_part(part, special=n % 2 == 1)]
        if bpe_fast.suits_tiktoken(text, self.tiktoken_from) and self._by_tiktoken:
            return self._by_tiktoken(text)
        try:
            return [i for piece in self.pieces(text) for i in self._encode_piece(piece)]
        except UnicodeEncodeError as error:
            raise half_a_character(error) from None

    def encode_bytes(self, content: bytes) -> list[int]:
        """Any bytes to token ids; what isn't UTF-8 is cut like signs and stays as it is."""
        return self.encode(content.decode("utf-8", "surrogateescape"))

    def decode(self, ids: Iterable[int]) -> str:
        """Token ids to text; bytes that are no UTF-8, such as half a character, become U+FFFD.

        Raises DataError for an id outside 0..vocab_size - 1.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Token ids to bytes: those that were encoded."""
        try:
            return b"".join([self.vocab[int(i)] for i in ids])
        except KeyError as error:
            raise DataError(f"the id {error} is not a token: ids run from 0 to {self.vocab_size - 1}") from None

    def to_bytes(self) -> bytes:
        """The content of a Hugging Face tokenizer.json."""
        from minigpt.tokenizers.huggingface_json import to_json

        return to_json(self)

    def save(self, path: Path | str) -> None:
        """Write a Hugging Face tokenizer.json, all or nothing. Raises FileError."""
        write_atomic(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a tokenizer.json, or a folder with GPT-2's vocab.json and merges.txt. Raises FileError."""
        from minigpt.tokenizers.huggingface_json import read

        return cls(**read(Path(path)))

    def _encode_part(self, part: str, special: bool) -> list[int]:
        return [self.special_tokens[part]] if special else self.encode(part)

    def _merge_piece(self, piece: str) -> list[int]:
        ids = [self._ids_of_bytes[byte] for byte in piece.encode("utf-8", "surrogateescape")]
        return bpe_fast.encode(ids, self._ranks)

    @functools.cached_property
    def _by_tiktoken(self) -> Callable[[str], list[int]] | None:
        ordinary = {i: token for i, token in self.vocab.items() if i not in self.special_tokens.values()}
        return bpe_fast.by_tiktoken(self.merges, ordinary, PATTERNS[self.pattern])


def require_special(names: Iterable[str], tokens: Iterable[bytes]) -> None:
    """Raise DataError unless the special tokens are different, not empty, and read like no other token."""
    from minigpt.tokenizers.huggingface_json import shown

    written = {shown(token) for token in tokens}
    seen: set[str] = set()
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"the special token {name!r} is not UTF-8: choose another") from None
        if not name or name in seen or name in written:
            why = "is empty" if not name else "is named twice" if name in seen else "is an ordinary token too"
            raise DataError(f"the special token {name!r} {why}: choose another, such as '<|endoftext|>'")
        seen.add(name)


def half_a_character(error: UnicodeEncodeError) -> DataError:
    """The error that says so of a text that no bytes stand for."""
    half = f"U+{ord(error.object[error.start]):04X}"
    return DataError(f"the text has half of a surrogate pair, {half}, which is no character: remove it")


def pieces_between(text: str, special_tokens: tuple[str, ...], pattern: str) -> list[str]:
    """The pieces of all that lies between special tokens."""
    cut = compiled(PATTERNS[pattern])
    return [piece for part in split_at(text, special_tokens)[::2] for piece in cut.findall(part)]


def split_at(text: str, special_tokens: tuple[str, ...]) -> list[str]:
    """The text cut at special tokens, the longer before the shorter: every second part is one."""
    if not special_tokens:
        return [text]
    names = sorted(special_tokens, key=len, reverse=True)
    return compiled("(" + "|".join(map(regex.escape, names)) + ")").split(text)


@functools.cache
def compiled(pattern: str) -> "regex.Pattern[str]":
    """The pattern, compiled once."""
    return regex.compile(pattern)

"""The tokenizer of byte-level BPE. bpe_basic.py explains how BPE works."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import regex

from minigpt.config import TokenizerKind
from minigpt.errors import ConfigError, DataError, FileError, MinigptError
from minigpt.system.files import write_atomic
from minigpt.system.text_encoding import require_text
from minigpt.tokenizers import bpe_fast
from minigpt.tokenizers.added_tokens import AddedToken, encode_between, group_by_priority, require_distinct, split_at
from minigpt.tokenizers.bpe_basic import Pair
from minigpt.tokenizers.byte_level import BYTE_TOKENS, PATTERNS
from minigpt.tokenizers.huggingface_json import format_tokenizer_json, read_tokenizer_files

if TYPE_CHECKING:
    import numpy as np

    from minigpt.tokenizers.bpe_libraries import LibraryEncoder

_LIBRARIES = ("gigatoken", "tiktoken")  # the faster first
_LIBRARY_THRESHOLD = 2**20  # characters; setting a library up takes longer than it saves for a shorter text


class BPETokenizer:
    """A byte-level BPE tokenizer.

    Attributes:
        merges: pairs of tokens that are merged, in the order learned.
        special_tokens: the ids of the special tokens, such as `<|endoftext|>`. `encode` returns them only on request.
        pattern: the key in `PATTERNS` of the pattern that cuts a text into pieces.
        added_tokens: words that are tokens too, at which `encode` splits every text.
        ids: the ids of bytes and merged tokens.
        vocab: the bytes of every token, by id.
        libraries: the names of the libraries that may encode large texts, see bpe_libraries.py.
        library_threshold: texts of at least this many characters are encoded by a library.

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
        added_tokens: Iterable[AddedToken] = (),
    ) -> None:
        """Number the tokens.

        Args:
            merges: pairs of tokens, in the order learned.
            special_tokens: the names of the special tokens; they get the last ids, unless a mapping gives others.
            pattern: a key of `PATTERNS`.
            ids: the ids of bytes and merged tokens. Without them the bytes are numbered first, then the merges.
            added_tokens: words at which every text is split.

        Raises:
            ConfigError: the pattern is unknown.
            DataError: a merge joins something that is not a token, the ids have gaps, or a special or added token is
                empty or reads like another token.
        """
        if pattern not in PATTERNS:
            raise ConfigError(f"there is no pattern '{pattern}': choose from {', '.join(PATTERNS)}")
        self.merges, self.pattern = list(merges), pattern
        self.libraries: tuple[str, ...] = _LIBRARIES
        self.library_threshold = _LIBRARY_THRESHOLD
        self._library_encoder: LibraryEncoder | None = None
        known = _number_tokens(self.merges, ids)
        self.ids, self.added_tokens = known, list(added_tokens)
        require_distinct(special_tokens, self.added_tokens, known)
        if not isinstance(special_tokens, Mapping):
            special_tokens = {name: len(known) + i for i, name in enumerate(special_tokens)}
        self.special_tokens = dict(special_tokens)
        self.vocab = {i: token for token, i in known.items()}
        self.vocab |= {i: name.encode() for name, i in self.special_tokens.items()}
        self.vocab |= {token.id: token.text.encode() for token in self.added_tokens}
        named_twice = sum(known.get(token.text.encode()) == token.id for token in self.added_tokens)
        count = len(known) + len(self.special_tokens) + len(self.added_tokens) - named_twice
        if self.vocab.keys() != set(range(count)):
            raise DataError("ids must run from 0 without gaps, each for one token")
        self._byte_ids = [known[bytes([byte])] for byte in range(256)]
        self._ranks: dict[Pair, tuple[int, int]] = {}
        for rank, (first, second) in enumerate(self.merges):
            self._ranks.setdefault((known[first], known[second]), (rank, known[first + second]))
        self._first, self._then = group_by_priority(self.added_tokens)
        self._encode_piece = functools.lru_cache(maxsize=2**16)(self._merge_piece)

    @classmethod
    def train(
        cls, text: str, vocab_size: int, special_tokens: Sequence[str] = (), pattern: str = "gpt2", processes: int = 1
    ) -> Self:
        """Learn a vocabulary from a text.

        Args:
            text: the training text. A special token in it separates documents; nothing is learned from it.
            vocab_size: the number of tokens, the 256 bytes and the special tokens included.
            special_tokens: the names of the special tokens.
            pattern: a key of `PATTERNS`.
            processes: how many processes count the words of a long text.

        Raises:
            ConfigError: vocab_size is too small for the bytes and the special tokens.
            DataError: the text is empty, is the name of a file, or has too few pairs for vocab_size.
        """
        require_text(text, "read it first, Path({name}).read_text()")
        if not text:
            raise DataError("the text is empty: there is nothing to learn a vocabulary from")
        cls([], special_tokens, pattern)  # raises for names that cannot be special tokens, before the long work
        if vocab_size < len(BYTE_TOKENS) + len(special_tokens):
            least = len(BYTE_TOKENS) + len(special_tokens)
            raise ConfigError(
                f"a byte-level vocabulary has {least} tokens at least, and {vocab_size} is fewer: raise it"
            )
        cut = functools.partial(_cut_into_pieces, special_tokens=tuple(special_tokens), pattern=pattern)
        try:
            words = bpe_fast.count_words(text, cut, processes)
        except UnicodeEncodeError as error:
            raise _build_surrogate_error(error) from None
        merges = bpe_fast.find_merges(words, vocab_size - len(special_tokens))
        tokenizer = cls(merges, special_tokens, pattern)
        if tokenizer.vocab_size < vocab_size:
            most = f"{tokenizer.vocab_size:,} tokens at most, not {vocab_size:,}"
            raise DataError(f"the text has merges for {most}: lower the vocabulary's size, or use a longer text")
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.vocab)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Convert text to token ids.

        Args:
            text: the text.
            allow_special: True converts a special token's name to its id; False treats the name as ordinary text.

        Raises:
            DataError: the text has half a surrogate pair, which UTF-8 cannot express.
        """
        first = self._first | self.special_tokens if allow_special else self._first
        return encode_between(text, (first, self._then), self._encode_ordinary)

    def encode_to_arrays(self, texts: Sequence[str]) -> list["np.ndarray"]:
        """Convert texts to token ids, as `encode` does for each of them: arrays (N,), uint32.

        A library encodes them if they have `library_threshold` characters together, or if it is set up already.

        Raises:
            DataError: a text has half a surrogate pair.
        """
        import numpy as np

        is_short = self._library_encoder is None and sum(map(len, texts)) < self.library_threshold
        if is_short or self.added_tokens:
            return [np.array(self.encode(text), np.uint32) for text in texts]
        return self.library_encoder(texts)

    def _encode_ordinary(self, text: str) -> list[int]:
        if len(text) < self.library_threshold:
            return self.encode_in_python(text)
        return self.library_encoder([text])[0].tolist()

    def encode_in_python(self, text: str) -> list[int]:
        """Convert text that has no added token to the same ids without a library."""
        try:
            return [i for piece in _cut_into_pieces(text, (), self.pattern) for i in self._encode_piece(piece)]
        except UnicodeEncodeError as error:
            raise _build_surrogate_error(error) from None

    def encode_bytes(self, content: bytes) -> list[int]:
        """Convert any bytes to token ids; bytes that are not UTF-8 are cut like punctuation and survive decoding."""
        return self.encode(content.decode("utf-8", "surrogateescape"))

    def decode(self, ids: Iterable[int]) -> str:
        """Convert token ids to text; bytes that are not UTF-8, such as part of a character, become U+FFFD.

        Raises:
            DataError: an id is not in 0..vocab_size - 1.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Convert token ids to the bytes that were encoded. Raise DataError as `decode` does."""
        try:
            return b"".join([self.vocab[int(i)] for i in ids])
        except KeyError as error:
            raise DataError(f"the id {error} is not a token: ids run from 0 to {self.vocab_size - 1}") from None

    def to_bytes(self) -> bytes:
        """Return the content of a Hugging Face tokenizer.json."""
        return self._tokenizer_json

    @functools.cached_property
    def _tokenizer_json(self) -> bytes:
        return format_tokenizer_json(self.vocab, self.merges, self.special_tokens, self.pattern, self.added_tokens)

    def save(self, path: Path | str) -> None:
        """Write a Hugging Face tokenizer.json, all or nothing. Raise FileError."""
        write_atomic(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a tokenizer.json, or a folder with GPT-2's vocab.json and merges.txt.

        Raises:
            FileError: a file is missing or damaged, or is another kind of tokenizer.
        """
        arguments = read_tokenizer_files(Path(path))
        try:
            return cls(**arguments)
        except (MinigptError, ValueError, AttributeError, TypeError) as error:
            raise FileError(f"{str(path)!r} is damaged: {error}") from None

    def _merge_piece(self, piece: str) -> list[int]:
        ids = [self._byte_ids[byte] for byte in piece.encode("utf-8", "surrogateescape")]
        return bpe_fast.apply_merges(ids, self._ranks)

    @property
    def library_encoder(self) -> "LibraryEncoder":
        """The encoder of large texts. NumPy and the library are imported when it is first needed."""
        if self._library_encoder is None:
            from minigpt.tokenizers.bpe_libraries import LIBRARIES, LibraryEncoder

            vocab = {i: token for token, i in self.ids.items()}
            libraries = [LIBRARIES[name] for name in self.libraries]
            self._library_encoder = LibraryEncoder(
                self.merges, vocab, self.pattern, self.encode_in_python, self.special_tokens, libraries
            )
        return self._library_encoder


def _number_tokens(merges: Iterable[tuple[bytes, bytes]], ids: Mapping[bytes, int] | None) -> dict[bytes, int]:
    """Return the ids of bytes and merged tokens: the given ids, or by default the bytes first, then the merges.

    Raises:
        DataError: a merge joins something that is not a token, or the given ids are of other tokens.
    """
    known = {token: i for i, token in enumerate(BYTE_TOKENS)}
    for first, second in merges:
        if first not in known or second not in known:
            raise DataError(f"the merge of {first!r} and {second!r} comes before one of them is a token")
        known.setdefault(first + second, len(known))
    if ids is None:
        return known
    if ids.keys() != known.keys():
        stray = min(ids.keys() ^ known.keys())
        raise DataError(f"the token {stray!r} is in only one of vocabulary and merges")
    return dict(ids)


def _build_surrogate_error(error: UnicodeEncodeError) -> DataError:
    """Return the error for a text that UTF-8 cannot express."""
    half = f"U+{ord(error.object[error.start]):04X}"
    return DataError(f"the text has half a surrogate pair, {half}, which is no character: remove it")


def _cut_into_pieces(text: str, special_tokens: tuple[str, ...], pattern: str) -> list[str]:
    """Cut the text between special tokens into pieces; merges happen only within a piece."""
    cut = _compile(PATTERNS[pattern])
    return [piece for part in split_at(text, special_tokens)[::2] for piece in cut.findall(part)]


@functools.cache
def _compile(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern)

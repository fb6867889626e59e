"""SentencePiece (Kudo and Richardson 2018): a thin adapter over its library.

It learns from raw text, white space included, by either of two methods: unigram, which begins with many pieces and
drops those that the text misses least, or BPE. Here it leaves the text as it is: no normalisation, no blank put
before it; and a character without a piece of its own is written as its bytes. So whatever is encoded comes back.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Self

from minigpt.config import TokenizerKind
from minigpt.errors import ConfigError, DataError, FileError, MissingExtraError
from minigpt.system.files import read_bytes, write_atomic
from minigpt.tokenizers.base import END_OF_TEXT

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

LARGEST_FILE = 8 * 2**20  # bytes; a quarter of a million pieces take 5
BLANK = "\N{LOWER ONE EIGHTH BLOCK}"  # what its format writes for a blank, and so cannot carry itself
LONGEST = 2**12  # characters that it learns from at a time
MOST_CHARACTERS = 0.9995  # the share with pieces of their own where there is no room for all; bytes write the rest
PROBE = f"  a  b\n\n\tﬁ ½ {'x' * 3} "  # comes back only from a model that leaves text as it is
Method = Literal["unigram", "bpe"]


class SentencePieceTokenizer:
    """Pieces of text by a SentencePiece model.

    Attributes:
        model: the content of its .model file.
        special_tokens: "<|endoftext|>", whatever the model calls it, and its id, if there is one.
    """

    kind: TokenizerKind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        """Raises FileError for bytes that are no such model, or one that changes the text or lacks byte fallback."""
        self.model, self._processor = model, opened(model)
        end = self._processor.eos_id()  # -1 if there is none
        self.special_tokens = {END_OF_TEXT: end} if end >= 0 else {}
        try:
            self._pieces = [piece_bytes(self._processor, i) for i in range(self.vocab_size)]
        except (RuntimeError, ValueError):  # of which a UnicodeDecodeError is one
            raise FileError("this SentencePiece model is damaged: its pieces are not text") from None
        for name, i in self.special_tokens.items():
            self._pieces[i] = name.encode()
        try:
            comes_back = self.decode(self.encode(PROBE)) == PROBE
        except DataError:
            comes_back = False
        if not comes_back:
            raise FileError(
                "this SentencePiece model changes the text that it encodes, or has no bytes to fall back to: train one "
                "with identity normalisation, no dummy prefix and byte fallback"
            )

    @classmethod
    def train(cls, text: str, vocab_size: int, method: Method = "unigram", end_of_text: bool = False) -> Self:
        """Learn a vocabulary of `vocab_size` pieces, 256 bytes and one for the unknown included, from a text.

        With `end_of_text` one of them stands between documents.

        Raises ConfigError for a size that cannot be, DataError for a text with U+2581.
        """
        library = imported()
        require_no_blank(text)
        if not text:
            raise DataError("the text is empty: there is nothing to learn a vocabulary from")
        if vocab_size <= 257:
            raise ConfigError(f"a SentencePiece vocabulary has more than 257 pieces, and {vocab_size} is not: raise it")
        has_room = len(set(text)) + 257 < vocab_size
        written = io.BytesIO()
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=sentences(text),
                model_writer=written,
                vocab_size=vocab_size,
                model_type=method,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                byte_fallback=True,
                character_coverage=1.0 if has_room else MOST_CHARACTERS,
                max_sentence_length=4 * LONGEST,
                num_threads=1,  # so that the same text gives the same model
                bos_id=-1,
                eos_id=1 if end_of_text else -1,
                eos_piece=END_OF_TEXT,
                minloglevel=2,
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).split("] ")[-1].split(". ")[0].strip().rstrip(".")
            raise ConfigError(f"SentencePiece cannot learn {vocab_size:,} pieces from this text: {reason}") from None
        return cls(written.getvalue())

    @property
    def vocab_size(self) -> int:
        """How many different pieces there are."""
        return self._processor.vocab_size()

    def encode(self, text: str) -> list[int]:
        """Text to token ids. Raises DataError for U+2581, or half of a surrogate pair, in the text."""
        require_no_blank(text)
        try:
            ids = self._processor.encode(text.encode())
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            raise DataError(
                f"the text has half of a surrogate pair, {half}, which is no character: remove it"
            ) from None
        if self._processor.unk_id() in ids:
            raise DataError("the text has a character that this SentencePiece model has no piece for")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Token ids to text; bytes that are no UTF-8, such as half a character, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Token ids to bytes. Raises DataError for an id outside 0..vocab_size - 1."""
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < len(self._pieces):
                raise DataError(f"the id {i} is not a token: ids run from 0 to {self.vocab_size - 1}")
        return b"".join([self._pieces[i] for i in ids])

    def to_bytes(self) -> bytes:
        """The content of its .model file."""
        return self.model

    def save(self, path: Path | str) -> None:
        """Write the .model file, all or nothing. Raises FileError."""
        write_atomic(Path(path), self.model)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a .model file, from `save` or elsewhere. Raises FileError as the constructor does."""
        content = read_bytes(path, LARGEST_FILE)
        try:
            return cls(content)
        except FileError as error:
            raise FileError(f"{str(path)!r}: {error}") from None


def imported() -> ModuleType:
    """The library. Raises MissingExtraError if it isn't installed."""
    try:
        import sentencepiece
    except ImportError:
        raise MissingExtraError("sentencepiece", "tokenizers") from None
    return sentencepiece


def opened(model: bytes) -> "SentencePieceProcessor":
    """The library's processor for a model."""
    processor = imported().SentencePieceProcessor()
    try:
        loaded = processor.LoadFromSerializedProto(model)
    except (RuntimeError, ValueError):
        loaded = False
    if not loaded or not processor.vocab_size():
        raise FileError("this is not a SentencePiece model: name a .model file that its trainer wrote")
    return processor


def piece_bytes(processor: "SentencePieceProcessor", i: int) -> bytes:
    """What the piece with that id stands for; control pieces, and the unknown, for nothing."""
    piece = processor.id_to_piece(i)
    if processor.is_byte(i):
        return bytes([int(piece[1:-1], 16)])  # <0x0A>
    if processor.is_control(i) or processor.is_unknown(i):
        return b""
    return piece.replace(BLANK, " ").encode()


def require_no_blank(text: str) -> None:
    """Raise DataError for a text with U+2581."""
    position = text.find(BLANK)
    if position >= 0:
        raise DataError(
            f"the text has U+2581 ({BLANK}) at position {position:,}, which SentencePiece's format uses for a blank: "
            "replace it, or choose another tokenizer"
        )


def sentences(text: str) -> Iterator[str]:
    """The text in parts that the trainer takes: whole lines, line ends included, cut only where they are too long."""
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), LONGEST):
            yield line[start : start + LONGEST]

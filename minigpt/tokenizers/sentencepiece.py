"""SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226): a thin adapter over its library.

SentencePiece learns pieces from raw text, white space included. It has two methods: BPE, and unigram, which begins with
many pieces and drops those that matter least to the likelihood of the text. The adapter turns normalization and the
blank before a text off, and writes a character that has no piece as its bytes. So decoding returns the encoded text.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self

from minigpt.config import TokenizerKind
from minigpt.errors import ConfigError, DataError, FileError, MissingExtraError
from minigpt.system.files import read_bytes, write_atomic
from minigpt.tokenizers.base import END_OF_TEXT

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_MAX_MODEL_BYTES = 8 * 2**20  # bytes; 250,000 pieces take 5 MB
_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"  # U+2581 stands for a blank in a model, so a text cannot have it
_MAX_SENTENCE = 2**12  # characters of a sentence, as the trainer calls its examples
_COVERAGE = 0.9995  # the share of characters that get a piece of their own where not all of them can
_PROBE = f"  a  b\n\n\tﬁ ½ {'x' * 3} "  # a model that changes text does not return this one
# Fields of sentencepiece_model.proto, and a value.
_TRAINER_SPEC, _MODEL_TYPE, _BPE = 2, 3, 2
_NORMALIZER_SPEC, _CHARACTER_MAP = 3, 2
PieceMethod = Literal["unigram", "bpe"]


@dataclass(frozen=True)
class Piece:
    """A piece of a vocabulary.

    Attributes:
        text: the piece, in which U+2581 stands for a blank; <0x0A> for the byte 10.
        score: the log of its probability, or with BPE minus the number of its merge.
        kind: what it stands for.
    """

    text: str
    score: float
    kind: Literal["text", "byte", "control", "unknown"]


class SentencePieceTokenizer:
    """A tokenizer that uses a SentencePiece model.

    Attributes:
        model: the content of the .model file.
        special_tokens: the id of the end-of-text token, if there is one; its name here is always `<|endoftext|>`.
    """

    kind: TokenizerKind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        """Load a model.

        Raises:
            FileError: the bytes are not a SentencePiece model, or the model changes the text or lacks byte fallback.
            MissingExtraError: the library is not installed.
        """
        self.model, self._processor = model, _load_processor(model)
        end = self._processor.eos_id()  # -1 if there is none
        self.special_tokens = {END_OF_TEXT: end} if end >= 0 else {}
        try:
            self._pieces = [_get_piece_bytes(self._processor, i) for i in range(self.vocab_size)]
        except (RuntimeError, ValueError):  # UnicodeDecodeError is a ValueError
            raise FileError("this SentencePiece model is damaged: its pieces are not text") from None
        for name, i in self.special_tokens.items():
            self._pieces[i] = name.encode()
        try:
            is_lossless = not _has_character_map(model) and self.decode(self.encode(_PROBE)) == _PROBE
        except DataError:
            is_lossless = False
        if not is_lossless:
            raise FileError(
                "this SentencePiece model changes the text that it encodes, or has no byte fallback: train one "
                "with identity normalization, no dummy prefix and byte fallback"
            )

    @classmethod
    def train(cls, text: str, vocab_size: int, method: PieceMethod = "unigram", end_of_text: bool = False) -> Self:
        """Learn a vocabulary from a text.

        Args:
            text: the training text.
            vocab_size: the number of pieces, the 256 bytes and the unknown piece included.
            method: "unigram" or "bpe".
            end_of_text: True adds a piece that stands between documents.

        Raises:
            ConfigError: the size is impossible for this text.
            DataError: the text is empty, or has the character U+2581.
            MissingExtraError: the library is not installed.
        """
        library = _import_library()
        _require_no_blank(text)
        if not text:
            raise DataError("the text is empty: there is nothing to learn a vocabulary from")
        if vocab_size <= 257:
            raise ConfigError(f"a SentencePiece vocabulary has more than 257 pieces, and {vocab_size} is not: raise it")
        has_room = len(set(text)) + 257 < vocab_size
        written = io.BytesIO()
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=_split_into_sentences(text),
                model_writer=written,
                vocab_size=vocab_size,
                model_type=method,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                byte_fallback=True,
                character_coverage=1.0 if has_room else _COVERAGE,
                max_sentence_length=4 * _MAX_SENTENCE,
                num_threads=1,  # with one thread the same text always gives the same model
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
        """The number of pieces."""
        return self._processor.vocab_size()

    @property
    def method(self) -> PieceMethod:
        """How the model cuts a text into pieces."""
        trainers = [content for field, content in _parse_fields(self.model) if field == _TRAINER_SPEC]
        kinds = [number for content in trainers for field, number in _parse_fields(content) if field == _MODEL_TYPE]
        return "bpe" if _BPE in kinds else "unigram"

    def list_pieces(self) -> list[Piece]:
        """Return the pieces, in the order of their ids."""
        get = self._processor
        return [Piece(get.id_to_piece(i), get.get_score(i), _get_kind(get, i)) for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        """Convert text to token ids.

        Raises:
            DataError: the text has U+2581, or half a surrogate pair, or a character that the model cannot express.
        """
        _require_no_blank(text)
        try:
            ids = self._processor.encode(text.encode())
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            raise DataError(f"the text has half a surrogate pair, {half}, which is no character: remove it") from None
        if self._processor.unk_id() in ids:
            raise DataError("the text has a character that this SentencePiece model has no piece for")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Convert token ids to text; bytes that are not UTF-8, such as part of a character, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Convert token ids to bytes. Raise DataError for an id outside 0..vocab_size - 1."""
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < len(self._pieces):
                raise DataError(f"the id {i} is not a token: ids run from 0 to {self.vocab_size - 1}")
        return b"".join([self._pieces[i] for i in ids])

    def to_bytes(self) -> bytes:
        """Return the content of the .model file."""
        return self.model

    def save(self, path: Path | str) -> None:
        """Write the .model file, all or nothing. Raise FileError."""
        write_atomic(Path(path), self.model)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a .model file. Raise FileError as the constructor does."""
        content = read_bytes(path, _MAX_MODEL_BYTES)
        try:
            return cls(content)
        except FileError as error:
            raise FileError(f"{str(path)!r}: {error}") from None


def _import_library() -> ModuleType:
    """Import sentencepiece. Raise MissingExtraError if it is not installed."""
    try:
        import sentencepiece
    except ImportError:
        raise MissingExtraError("sentencepiece", "tokenizers") from None
    return sentencepiece


def _load_processor(model: bytes) -> "SentencePieceProcessor":
    """Load a model into the library. Raise FileError for what is not a model."""
    processor = _import_library().SentencePieceProcessor()
    try:
        loaded = processor.LoadFromSerializedProto(model)
    except (RuntimeError, ValueError):
        loaded = False
    if not loaded or not processor.vocab_size():
        raise FileError("this is not a SentencePiece model: name a .model file that its trainer wrote")
    return processor


def _get_piece_bytes(processor: "SentencePieceProcessor", i: int) -> bytes:
    """Return the text that a piece stands for, in UTF-8: nothing for control pieces and the unknown piece."""
    piece = processor.id_to_piece(i)
    if processor.is_byte(i):
        return bytes([int(piece[1:-1], 16)])  # <0x0A>
    if processor.is_control(i) or processor.is_unknown(i):
        return b""
    return piece.replace(_BLANK, " ").encode()


def _get_kind(processor: "SentencePieceProcessor", i: int) -> Literal["text", "byte", "control", "unknown"]:
    """Return what a piece stands for."""
    if processor.is_byte(i):
        return "byte"
    if processor.is_control(i):
        return "control"
    return "unknown" if processor.is_unknown(i) else "text"


def _has_character_map(model: bytes) -> bool:
    """Return True if a model replaces characters before it encodes: its normalizer_spec has a precompiled_charsmap."""
    try:
        normalizers = [content for field, content in _parse_fields(model) if field == _NORMALIZER_SPEC]
        fields = [each for content in normalizers for each in _parse_fields(content)]
    except IndexError:
        raise FileError("this SentencePiece model is damaged: it is cut short") from None
    return any(field == _CHARACTER_MAP and content for field, content in fields)


def _parse_fields(message: Any) -> Iterator[tuple[int, Any]]:
    """Yield the number of each field of a Protocol Buffers message, and its content: bytes or a whole number.

    A number in the place of a message has no fields.
    """
    if not isinstance(message, bytes):
        return
    i = 0

    def read_varint() -> int:
        nonlocal i
        number = 0
        for shift in range(0, 70, 7):
            i += 1
            number |= (message[i - 1] & 127) << shift
            if message[i - 1] < 128:
                return number
        raise IndexError

    while i < len(message):
        field, kind = divmod(read_varint(), 8)
        if kind == 0:
            yield field, read_varint()
        elif kind == 2:
            size = read_varint()
            yield field, message[i : i + size]
            i += size
        else:
            i += {1: 8, 5: 4}.get(kind, 0)


def _require_no_blank(text: str) -> None:
    """Raise DataError for a text with U+2581."""
    position = text.find(_BLANK)
    if position >= 0:
        raise DataError(
            f"the text has U+2581 ({_BLANK}) at position {position:,}, which SentencePiece's format uses for a blank: "
            "replace it, or choose another tokenizer"
        )


def _split_into_sentences(text: str) -> Iterator[str]:
    """Split a text into the trainer's sentences: lines with their line ends, cut where they are too long."""
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), _MAX_SENTENCE):
            yield line[start : start + _MAX_SENTENCE]

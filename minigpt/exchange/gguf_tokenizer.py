"""A tokenizer as the vocabulary of a GGUF file, with which llama.cpp encodes and decodes in the same way, and back."""

from dataclasses import dataclass, field
from enum import IntEnum

from minigpt.errors import ExchangeError
from minigpt.tokenizers.added_tokens import AddedToken
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import text_to_token, token_to_text
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

# How llama.cpp cuts a text into pieces. Its "gpt-2" has GPT-2's pattern too, but llama.cpp then removes the blank in
# " ?" and " n't" when it decodes. "trillion" has the pattern and decodes exactly. GPT-4's pattern is in none that
# decodes exactly; "dbrx" has it.
PRE_TOKENIZERS = {"gpt2": "trillion", "gpt4": "dbrx"}
RESERVED_TOKEN = "<|reserved|>"
_PATTERNS = {  # ours, by the names of llama.cpp; files without a name are older than the names
    None: "gpt2",
    "gpt-2": "gpt2",
    "phi-2": "gpt2",
    "trillion": "gpt2",
    "dbrx": "gpt4",
    "smaug-bpe": "gpt4",
}
_NO_MERGE = f"{token_to_text(bytes([0xFF]))} {token_to_text(bytes([0xFF]))}"  # UTF-8 never has this byte


class TokenType(IntEnum):
    """What a token stands for, as in llama.h."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass
class Vocabulary:
    """The keys of a GGUF file that begin with `tokenizer.ggml`.

    Attributes:
        model: how text becomes tokens: "gpt2" (BPE over bytes), "t5" (unigram) or "llama" (BPE over characters).
        tokens: the name of each token, in the order of the ids.
        types: what each token stands for.
        pre: how a text is cut into pieces; only of "gpt2".
        merges: the merges, in the order learned; only of "gpt2".
        scores: the score of each token; not of "gpt2".
        unknown: the id of the token for what has no other token.
        sentencepiece: the content of SentencePiece's tokenizer.model, for the import.
    """

    model: str
    tokens: list[str]
    types: list[TokenType]
    pre: str | None = None
    merges: list[str] = field(default_factory=list)
    scores: list[float] | None = None
    unknown: int | None = None
    sentencepiece: bytes | None = None

    def append_reserved(self) -> int:
        """Add a token that no text has, and return its id."""
        self.tokens.append(RESERVED_TOKEN)
        self.types.append(TokenType.CONTROL)
        if self.scores is not None:
            self.scores.append(0.0)
        return len(self.tokens) - 1


def build_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return the vocabulary of a tokenizer. Raise ExchangeError if llama.cpp could not tell two tokens apart."""
    if isinstance(tokenizer, CharTokenizer):
        found = _list_characters(tokenizer)
    elif isinstance(tokenizer, BPETokenizer):
        found = _list_byte_tokens(tokenizer)
    else:
        assert isinstance(tokenizer, SentencePieceTokenizer)
        found = _list_pieces(tokenizer)
    names = [*found.tokens, RESERVED_TOKEN]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ExchangeError(f"two tokens would be named {twice!r} in a GGUF file: export with --to hf")
    return found


def _list_characters(tokenizer: CharTokenizer) -> Vocabulary:
    """Return a byte-level vocabulary in which each character is one token.

    llama.cpp begins with bytes and merges them. A character of n bytes needs n - 1 merges, which build it from its
    first byte on. No merge joins two characters, because none has a character's first byte on its right side.
    """
    merges: dict[str, None] = {}
    for character in tokenizer.stoi:
        encoded = character.encode()
        for end in range(1, len(encoded)):
            merges[f"{token_to_text(encoded[:end])} {token_to_text(encoded[end : end + 1])}"] = None
    return Vocabulary(
        model="gpt2",
        tokens=[token_to_text(character.encode()) for character in tokenizer.stoi] + list(tokenizer.special_tokens),
        types=[TokenType.NORMAL] * len(tokenizer.stoi) + [TokenType.CONTROL] * len(tokenizer.special_tokens),
        pre=PRE_TOKENIZERS["gpt2"],
        merges=list(merges) or [_NO_MERGE],
        unknown=None if tokenizer.unknown is None else tokenizer.stoi[tokenizer.unknown],
    )


def _list_byte_tokens(tokenizer: BPETokenizer) -> Vocabulary:
    """Return the vocabulary of a byte-level BPE."""
    special = {i: name for name, i in tokenizer.special_tokens.items()}
    added = {token.id: token.text for token in tokenizer.added_tokens}
    tokens, types = [], []
    for i in range(tokenizer.vocab_size):
        tokens.append(special.get(i) or added.get(i) or token_to_text(tokenizer.vocab[i]))
        types.append(TokenType.CONTROL if i in special else TokenType.USER_DEFINED if i in added else TokenType.NORMAL)
    merges = [f"{token_to_text(first)} {token_to_text(second)}" for first, second in tokenizer.merges]
    return Vocabulary("gpt2", tokens, types, PRE_TOKENIZERS[tokenizer.pattern], merges or [_NO_MERGE])


def _list_pieces(tokenizer: SentencePieceTokenizer) -> Vocabulary:
    """Return the vocabulary of a SentencePiece model.

    SentencePiece writes a character without a piece as its bytes. llama.cpp's unigram does not, so the byte pieces of
    ASCII, such as that of the line end, are named as text there. No other piece has such a character.
    """
    kinds = {
        "text": TokenType.NORMAL,
        "byte": TokenType.BYTE,
        "control": TokenType.CONTROL,
        "unknown": TokenType.UNKNOWN,
    }
    pieces = tokenizer.list_pieces()
    names, types = [piece.text for piece in pieces], [kinds[piece.kind] for piece in pieces]
    if tokenizer.method == "unigram":
        known = {*names, "\0", " "}  # llama.cpp's texts end at a zero byte; a blank is U+2581
        for i, piece in enumerate(pieces):
            if piece.kind == "byte" and (byte := int(piece.text[1:-1], 16)) < 0x80 and chr(byte) not in known:
                names[i], types[i] = chr(byte), TokenType.NORMAL
    return Vocabulary(
        model="t5" if tokenizer.method == "unigram" else "llama",
        tokens=names,
        types=types,
        scores=[piece.score for piece in pieces],
        unknown=next((i for i, piece in enumerate(pieces) if piece.kind == "unknown"), None),
        sentencepiece=tokenizer.model,
    )


def rebuild_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Return the tokenizer of a vocabulary.

    Raises:
        ExchangeError: llama.cpp encodes with this vocabulary in a way that no tokenizer here does.
        MinigptError: the vocabulary is damaged. KeyError and ValueError too.
    """
    if vocabulary.sentencepiece is not None:
        return SentencePieceTokenizer(vocabulary.sentencepiece)
    if vocabulary.model != "gpt2":
        raise ExchangeError(f"it is of the kind {vocabulary.model!r}, and only 'gpt2', byte-level BPE, can be read")
    normal = {i: name for i, name in enumerate(vocabulary.tokens) if vocabulary.types[i] == TokenType.NORMAL}
    tokens = {i: text_to_token(name) for i, name in normal.items()}
    special = {
        name: i
        for i, name in enumerate(vocabulary.tokens)
        if vocabulary.types[i] not in (TokenType.NORMAL, TokenType.USER_DEFINED)
    }
    if tokens and all(_is_character(token) for token in tokens.values()):
        return _rebuild_characters(vocabulary, tokens, special)
    pattern = _PATTERNS.get(vocabulary.pre)
    if pattern is None:
        raise ExchangeError(f"it cuts a text by {vocabulary.pre!r}, and only GPT-2's and GPT-4's patterns can be read")
    pairs = [merge.partition(" ") for merge in vocabulary.merges if merge != _NO_MERGE]
    merges = [(text_to_token(first), text_to_token(second)) for first, _, second in pairs]
    ids = {token: i for i, token in tokens.items()}
    merged = {first + second for first, second in merges}
    added = [i for i, kind in enumerate(vocabulary.types) if kind == TokenType.USER_DEFINED]
    ids |= {name: i for i in added if (name := vocabulary.tokens[i].encode()) in merged and name not in ids}
    words = [AddedToken(vocabulary.tokens[i], i, normalized=False) for i in added]
    return BPETokenizer(merges, special, pattern, ids, words)


def _is_character(token: bytes) -> bool:
    """Return True if a token is one character."""
    try:
        return len(token.decode()) == 1
    except UnicodeDecodeError:
        return False


def _rebuild_characters(vocabulary: Vocabulary, tokens: dict[int, bytes], special: dict[str, int]) -> CharTokenizer:
    """Return a character tokenizer. Raise ExchangeError unless the characters come before the special tokens."""
    if [*tokens, *special.values()] != list(range(len(vocabulary.tokens))):
        raise ExchangeError("its characters do not come before all other tokens")
    if any(len(name) < 2 for name in special):
        raise ExchangeError("the name of a special token is a single character")
    characters = [token.decode() for token in tokens.values()]
    unknown = characters[vocabulary.unknown] if vocabulary.unknown in tokens else None
    return CharTokenizer(characters, list(special), unknown)

"""A tokenizer for a run: trained on a text, read from a file, or fetched.

Each kind is imported when it is needed: BPE and what it imports take as long to load as all else in `minigpt info`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from minigpt.config import TokenizerKind
from minigpt.errors import DataError, FileError, MissingExtraError
from minigpt.system.files import read_bytes, require_inside
from minigpt.tokenizers.base import END_OF_TEXT, MAX_TOKENIZER_BYTES, Tokenizer
from minigpt.tokenizers.char import CharTokenizer

if TYPE_CHECKING:
    from minigpt.tokenizers.bpe import BPETokenizer

_FILE_NAMES = ("tokenizer.json", "tokenizer.model")
_GPT2_FILE_NAMES = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")


def train_tokenizer(kind: TokenizerKind, text: str, vocab_size: int) -> Tokenizer:
    """Train a tokenizer on a text.

    Args:
        kind: which tokenizer; "gpt2" fetches GPT-2's instead of training one.
        text: the training text.
        vocab_size: the number of tokens, for "bpe" and "sentencepiece".

    Raises:
        ConfigError: the size is impossible.
        DataError: the text is too short for it, or GPT-2's tokenizer cannot be fetched.
    """
    if kind == "gpt2":
        return load_gpt2_tokenizer()
    if kind == "bpe":
        from minigpt.tokenizers.bpe import BPETokenizer

        return BPETokenizer.train(text, vocab_size)
    if kind == "sentencepiece":
        from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer.train(text, vocab_size)
    return CharTokenizer.from_text(text)


def load_gpt2_tokenizer() -> "BPETokenizer":
    """Load GPT-2's tokenizer, which tiktoken fetches from the network or its cache.

    Raises:
        DataError: the network cannot be reached.
        MissingExtraError: tiktoken is not installed.
    """
    from minigpt.tokenizers.bpe import BPETokenizer
    from minigpt.tokenizers.tiktoken_adapter import recover_merges

    way_out = "name a folder with its vocab.json and merges.txt instead"
    try:
        import tiktoken

        ranks = tiktoken.get_encoding("gpt2")._mergeable_ranks
    except ImportError:
        raise MissingExtraError("tiktoken", "tokenizers") from None
    except Exception as error:  # tiktoken passes on any exception of its network libraries
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"GPT-2's tokenizer cannot be fetched ({reason}): {way_out}") from None
    return BPETokenizer(recover_merges(ranks), {END_OF_TEXT: len(ranks)}, ids=ranks)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer of any kind.

    Args:
        path: a tokenizer's file, a run, or a folder with GPT-2's vocab.json and merges.txt.

    Raises:
        FileError: there is no tokenizer, or it is damaged.
    """
    if not str(path):
        raise FileError("the tokenizer's file has no name: name it, or the folder of a run")
    path = Path(path)
    if path.is_dir():
        require_inside(path, [path / name for name in (*_FILE_NAMES, *_GPT2_FILE_NAMES)])
        path = next((path / name for name in _FILE_NAMES if (path / name).is_file()), path)
    if path.is_dir():
        if not (path / "vocab.json").exists():
            raise FileError(f"cannot read a tokenizer from {str(path)!r}: the folder has none: name a file, or a run")
        return _load_bpe(path)
    content = read_bytes(path, MAX_TOKENIZER_BYTES)
    if path.suffix == ".model":
        from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer.load(path)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(path)!r} is not a tokenizer: it is not JSON ({error})") from None
    is_char = isinstance(found, dict) and "kind" in found
    return CharTokenizer.load(path) if is_char else _load_bpe(path)


def _load_bpe(path: Path) -> Tokenizer:
    from minigpt.tokenizers.bpe import BPETokenizer

    return BPETokenizer.load(path)

"""The kinds of tokenizer: made for a text, read from a file, told apart by what they are."""

import json
from pathlib import Path

from minigpt.config import TokenizerKind
from minigpt.errors import DataError, FileError
from minigpt.system.files import read_bytes, require_inside
from minigpt.tokenizers.base import LARGEST_FILE, Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.bpe_fast import recover_merges
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer


def train_tokenizer(kind: TokenizerKind, text: str, vocab_size: int) -> Tokenizer:
    """A tokenizer of that kind for a text; characters, and GPT-2's tokens, have a size of their own.

    Raises ConfigError for a size that cannot be, DataError for a text that has not enough to learn from or where
    GPT-2's tokens cannot be had.
    """
    if kind == "gpt2":
        return load_gpt2_tokenizer()
    if kind == "bpe":
        return BPETokenizer.train(text, vocab_size)
    if kind == "sentencepiece":
        return SentencePieceTokenizer.train(text, vocab_size)
    return CharTokenizer.from_text(text)


def load_gpt2_tokenizer() -> BPETokenizer:
    """GPT-2's own tokenizer, which tiktoken fetches from the network or has in its cache.

    Raises DataError, with another way, if it cannot be had.
    """
    way_out = "name a folder with its vocab.json and merges.txt instead"
    try:
        import tiktoken

        ranks = tiktoken.get_encoding("gpt2")._mergeable_ranks
    except ImportError:
        raise DataError(f"GPT-2's tokenizer is fetched by tiktoken, which is not installed: {way_out}") from None
    except Exception as error:  # whatever the network's libraries raise
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"GPT-2's tokenizer cannot be fetched ({reason}): {way_out}") from None
    return BPETokenizer(recover_merges(ranks), {"<|endoftext|>": len(ranks)}, ids=ranks)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer from a file, or from a folder that has one: a run, or one with GPT-2's vocab.json and merges.txt.

    Raises FileError for what is no tokenizer.
    """
    if not str(path):
        raise FileError("the tokenizer's file has no name: name it, or the folder of a run")
    path = Path(path)
    if path.is_dir():
        names = ("tokenizer.json", "tokenizer.model")
        require_inside(path, [path / name for name in (*names, "vocab.json", "merges.txt")])
        path = next((path / name for name in names if (path / name).is_file()), path)
    if path.is_dir() and not (path / "vocab.json").exists():
        raise FileError(f"cannot read a tokenizer from {str(path)!r}: the folder has none: name a file, or a run")
    if path.is_dir():
        return BPETokenizer.load(path)
    content = read_bytes(path, LARGEST_FILE)
    if path.suffix == ".model":
        return SentencePieceTokenizer.load(path)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(path)!r} is not a tokenizer: it is not JSON ({error})") from None
    is_ours = isinstance(found, dict) and "kind" in found
    return CharTokenizer.load(path) if is_ours else BPETokenizer.load(path)

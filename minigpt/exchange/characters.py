"""The characters of an imported model, as a tokenizer."""

from pathlib import Path
from typing import Any

from minigpt.errors import ExchangeError
from minigpt.tokenizers.char import CharTokenizer


def make_char_tokenizer(tokens: Any, path: Path) -> CharTokenizer:
    """Make a tokenizer of a list of characters, in the order of their ids.

    Args:
        tokens: characters, and after them the names of special tokens, which are longer.
        path: the file that they are from, for the message.

    Raises:
        ExchangeError: it is no such list, or a token is repeated.
    """
    if not isinstance(tokens, list) or not all(isinstance(token, str) and token for token in tokens):
        raise ExchangeError(f"{str(path)!r} is no vocabulary: it must name a character for each id from 0")
    count = next((i for i, token in enumerate(tokens) if len(token) > 1), len(tokens))
    if not count or len(set(tokens)) != len(tokens) or any(len(token) == 1 for token in tokens[count:]):
        raise ExchangeError(f"{str(path)!r} is no vocabulary of characters: a token is repeated, or has several")
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:
        raise ExchangeError(f"{str(path)!r} is damaged: it has half a surrogate pair, which is no character") from None
    return CharTokenizer(tokens[:count], tokens[count:])

"""Tokenizers: text to token ids and back, and the chat format.

The classes are imported when they are first used, so that a command that needs one of them does not load the others.
"""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.tokenizers.base import Tokenizer
    from minigpt.tokenizers.bpe import BPETokenizer
    from minigpt.tokenizers.char import CharTokenizer
    from minigpt.tokenizers.chat_format import ChatTemplate, Turn
    from minigpt.tokenizers.loading import load_tokenizer, train_tokenizer
    from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "ChatTemplate",
    "SentencePieceTokenizer",
    "Tokenizer",
    "Turn",
    "load_tokenizer",
    "train_tokenizer",
]

_MODULES = {
    "BPETokenizer": "bpe",
    "CharTokenizer": "char",
    "ChatTemplate": "chat_format",
    "SentencePieceTokenizer": "sentencepiece",
    "Tokenizer": "base",
    "Turn": "chat_format",
    "load_tokenizer": "loading",
    "train_tokenizer": "loading",
}

__getattr__ = import_lazily(__name__, _MODULES)

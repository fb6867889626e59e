"""A run's tokenizer as the files that `AutoTokenizer.from_pretrained` of transformers opens."""

import json
from pathlib import Path
from typing import Any

from minigpt.exchange.huggingface_sentencepiece import format_sentencepiece
from minigpt.system.files import read_bytes
from minigpt.tokenizers.base import MAX_TOKENIZER_BYTES, Tokenizer, find_end_of_text
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import END_OF_ANSWER, ROLE_TOKENS
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

UNKNOWN_TOKEN = "<unk>"
UNKNOWN_TOKEN_LIMIT = (  # a line of a model card
    f"- A character that is not in the vocabulary is read as {UNKNOWN_TOKEN}, which was not trained. The model never "
    "writes it."
)
CHAT_TEMPLATE = (  # the format of tokenizers/chat_format.py, in Jinja
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '" + END_OF_ANSWER + "' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ROLE_TOKENS["assistant"] + "' }}{% endif %}"
)
_SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def should_add_unknown_token(tokenizer: Tokenizer) -> bool:
    """Return True if the exported model needs one more token, for characters outside the vocabulary."""
    return isinstance(tokenizer, CharTokenizer) and tokenizer.unknown is None


def format_tokenizer(tokenizer: Tokenizer) -> bytes:
    """Return the content of tokenizer.json.

    A character tokenizer becomes a BPE without merges. An unknown character becomes the token <unk>, whose id is
    `tokenizer.vocab_size`, or the tokenizer's own character for unknown ones.
    """
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.to_bytes()
    if isinstance(tokenizer, SentencePieceTokenizer):
        return format_sentencepiece(tokenizer)
    assert isinstance(tokenizer, CharTokenizer)
    vocab, special, unknown = dict(tokenizer.stoi), dict(tokenizer.special_tokens), tokenizer.unknown
    if unknown is None:
        unknown, special[UNKNOWN_TOKEN] = UNKNOWN_TOKEN, tokenizer.vocab_size
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **_SPECIAL} for name, i in special.items()],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},  # joins the characters without blanks between them
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab | special,
            "merges": [],
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def read_character_tokenizer(path: Path) -> CharTokenizer | None:
    """Return the character tokenizer that `format_tokenizer` wrote to a file; None for another tokenizer.

    The token <unk> that it added is left out.
    """
    try:
        content = json.loads(read_bytes(path, MAX_TOKENIZER_BYTES))
        model, special = content["model"], [str(entry["content"]) for entry in content["added_tokens"]]
        if model["type"] != "BPE" or model["merges"] or content["pre_tokenizer"] or content["normalizer"]:
            return None
        names = [str(name) for name in model["vocab"]]
        is_numbered = list(model["vocab"].values()) == list(range(len(names)))
        unknown = model["unk_token"]
        "".join(names).encode()  # half a surrogate pair is no character
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    characters = names[: len(names) - len(special)]
    if not is_numbered or names != characters + special or any(len(name) < 2 for name in special):
        return None
    if not characters or any(len(name) != 1 for name in characters):
        return None
    if special[-1:] == [unknown] == [UNKNOWN_TOKEN]:
        special, unknown = special[:-1], None
    return CharTokenizer(characters, special, unknown) if unknown in (None, *characters) else None


def describe_tokenizer(tokenizer: Tokenizer, block_size: int, has_instructions: bool) -> dict[str, Any]:
    """Return the content of tokenizer_config.json.

    Args:
        tokenizer: the run's tokenizer.
        block_size: the context of the model, in tokens.
        has_instructions: whether the model was trained on instructions; then the chat template comes along.
    """
    content: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    if should_add_unknown_token(tokenizer):
        content["unk_token"] = UNKNOWN_TOKEN
    if (end := find_end(tokenizer, has_instructions)) is not None:
        content["eos_token"] = _name_token(tokenizer, end)
    if has_instructions:
        content["chat_template"] = CHAT_TEMPLATE
    return content


def _name_token(tokenizer: Tokenizer, i: int) -> str:
    """Return the name of a special token in tokenizer.json."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return tokenizer.list_pieces()[i].text
    return next(name for name, each in tokenizer.special_tokens.items() if each == i)


def find_end(tokenizer: Tokenizer, has_instructions: bool) -> int | None:
    """Return the id of the token that ends a text: that after an answer, or that between documents."""
    if has_instructions:
        return tokenizer.special_tokens[END_OF_ANSWER]
    return find_end_of_text(tokenizer)

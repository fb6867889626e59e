"""Byte-level BPE in the files of others: Hugging Face's tokenizer.json, and GPT-2's vocab.json with merges.txt.

In both a token is written as text, each of its bytes as one character: a printable byte as itself, the others as the
characters from U+0100 on.
"""

import json
from pathlib import Path
from typing import Any

from minigpt.errors import FileError, MinigptError
from minigpt.system.files import read_bytes, read_text
from minigpt.tokenizers.base import LARGEST_FILE
from minigpt.tokenizers.bpe import BYTES, PATTERNS, PRINTABLE, BPETokenizer

CHARACTERS = [chr(byte) for byte in PRINTABLE] + [chr(0x100 + i) for i in range(256 - len(PRINTABLE))]
SHOWN = {token[0]: character for token, character in zip(BYTES, CHARACTERS, strict=True)}
BYTE_OF = {character: byte for byte, character in SHOWN.items()}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN: dict[str, tuple] = {  # settings of a model, and the values with which they change nothing
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
}
SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def shown(token: bytes) -> str:
    """A token as these files write it.

    >>> shown(b" the")
    'Ġthe'
    """
    return "".join([SHOWN[byte] for byte in token])


def hidden(text: str) -> bytes:
    """The token that these files write so. Raises KeyError for a character that stands for no byte."""
    return bytes([BYTE_OF[character] for character in text])


def cut_by(pattern: str) -> dict[str, Any]:
    """The pre-tokenizer of that pattern."""
    if pattern == "gpt2":
        return BYTE_LEVEL
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL | {"use_regex": False}]}


def to_json(tokenizer: BPETokenizer) -> bytes:
    """The content of a tokenizer.json that Hugging Face's tokenizers and this package read alike."""
    special = {i: name for name, i in tokenizer.special_tokens.items()}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": special[i], **SPECIAL} for i in sorted(special)],
        "normalizer": None,
        "pre_tokenizer": cut_by(tokenizer.pattern),
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {special.get(i) or shown(tokenizer.vocab[i]): i for i in sorted(tokenizer.vocab)},
            "merges": [[shown(first), shown(second)] for first, second in tokenizer.merges],
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def read(path: Path) -> dict[str, Any]:
    """What `BPETokenizer` takes, from a tokenizer.json or a folder with GPT-2's two files.

    Raises FileError for one that is damaged or that isn't byte-level BPE cut by a pattern known here.
    """
    if path.is_dir():
        return read_gpt2(path)
    content = parsed(path)
    try:
        model = content["model"]
        if model["type"] != "BPE":
            raise FileError(f"{str(path)!r} is a tokenizer of the type {model['type']!r}, and only BPE is known here")
        for name, plain in PLAIN.items():
            if model.get(name) not in plain:
                raise FileError(f"{str(path)!r} has {name} = {model[name]!r}, which is not known here")
        if content.get("normalizer") is not None:
            raise FileError(f"{str(path)!r} changes the text before it cuts it (a normalizer), which is not known here")
        processor = content.get("post_processor")
        if (processor and processor["type"] != "ByteLevel") or content.get("truncation") or content.get("padding"):
            raise FileError(f"{str(path)!r} adds tokens, or cuts them off, once it has cut the text: not known here")
        special = {added["content"]: added["id"] for added in content.get("added_tokens", [])}
        merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        return checked(path, {"vocab": model["vocab"], "merges": merges, "special": special}, pattern_of(content, path))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise FileError(f"{str(path)!r} is damaged: {type(error).__name__} {error}; use the file as it was") from None


def read_gpt2(folder: Path) -> dict[str, Any]:
    """The same from vocab.json and merges.txt; what no merge makes, such as <|endoftext|>, is a special token."""
    vocab = parsed(folder / "vocab.json")
    lines = read_text(folder / "merges.txt", LARGEST_FILE).split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    made = {*CHARACTERS, *("".join(pair) for pair in merges)}
    special = {name: i for name, i in vocab.items() if name not in made}
    return checked(folder, {"vocab": vocab, "merges": merges, "special": special}, "gpt2")


def checked(path: Path, content: dict[str, Any], pattern: str) -> dict[str, Any]:
    """The arguments of `BPETokenizer`; FileError if it refuses them."""
    special, merges = content["special"], content["merges"]
    try:
        if len(set(merges)) < len(merges):
            raise FileError(f"{str(path)!r} is damaged: it has a merge twice")
        found = {
            "merges": [(hidden(first), hidden(second)) for first, second in content["merges"]],
            "ids": {hidden(name): i for name, i in content["vocab"].items() if name not in special},
            "special_tokens": special,
            "pattern": pattern,
        }
        for i in [*content["vocab"].values(), *special.values()]:
            if not isinstance(i, int) or isinstance(i, bool):
                raise FileError(f"{str(path)!r} is damaged: {i!r} is no id")
        BPETokenizer(**found)
    except KeyError as error:
        raise FileError(f"{str(path)!r} is not byte-level: {error} stands for no byte") from None
    except (MinigptError, ValueError, AttributeError, TypeError) as error:
        raise FileError(f"{str(path)!r} is damaged: {error}") from None
    return found


def pattern_of(content: dict[str, Any], path: Path) -> str:
    """The name of the pattern that the file cuts by."""
    found = content["pre_tokenizer"]
    steps = found["pretokenizers"] if found and found["type"] == "Sequence" else [found]
    kinds = [step and step["type"] for step in steps]
    if kinds[-1] == "ByteLevel" and not steps[-1]["add_prefix_space"]:
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt2"
        if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
            for name, pattern in PATTERNS.items():
                if steps[0]["pattern"] == {"Regex": pattern} and steps[0]["behavior"] == "Isolated":
                    return name
    raise FileError(f"{str(path)!r} cuts text in a way not known here: known are GPT-2's and GPT-4's patterns")


def parsed(path: Path) -> dict[str, Any]:
    """A JSON object in a file. Raises FileError for anything else."""
    try:
        content = json.loads(read_bytes(path, LARGEST_FILE))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(path)!r} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise FileError(f"{str(path)!r} is not a tokenizer: it holds no JSON object")
    return content

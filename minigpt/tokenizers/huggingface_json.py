"""The files of byte-level BPE tokenizers: Hugging Face's tokenizer.json, and GPT-2's vocab.json with merges.txt."""

import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.errors import FileError
from minigpt.system.files import read_bytes, read_text
from minigpt.system.warn_once import warn_once
from minigpt.tokenizers.added_tokens import AddedToken
from minigpt.tokenizers.base import MAX_TOKENIZER_BYTES
from minigpt.tokenizers.byte_level import BYTE_CHARACTERS, PATTERNS, text_to_token, token_to_text

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_ADDED_TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_SUPPORTED_VALUES: dict[str, tuple] = {  # other values of these fields change the ids in ways that bpe.py lacks
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
}


def format_tokenizer_json(
    vocab: Mapping[int, bytes],
    merges: Sequence[tuple[bytes, bytes]],
    special_tokens: Mapping[str, int],
    pattern: str,
    added_tokens: Sequence[AddedToken] = (),
) -> bytes:
    """Return the content of a tokenizer.json that Hugging Face's tokenizers encodes with in the same way.

    Args:
        vocab: the bytes of each token, by id, special tokens included.
        merges: pairs of tokens, in the order learned.
        special_tokens: the id of each special token.
        pattern: a key of `PATTERNS`.
        added_tokens: words that are tokens too.
    """
    names = {i: name for name, i in special_tokens.items()} | {token.id: token.text for token in added_tokens}
    listed = [{"id": i, "content": name, **_ADDED_TOKEN} for name, i in special_tokens.items()]
    for token in added_tokens:
        flags = _ADDED_TOKEN | {"normalized": token.normalized, "special": False}
        listed.append({"id": token.id, "content": token.text, **flags})
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(listed, key=operator.itemgetter("id")),
        "normalizer": None,
        "pre_tokenizer": _format_pre_tokenizer(pattern),
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {names.get(i) or token_to_text(vocab[i]): i for i in sorted(vocab)},
            "merges": [[token_to_text(first), token_to_text(second)] for first, second in merges],
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def read_tokenizer_files(path: Path) -> dict[str, Any]:
    """Read a tokenizer.json, or a folder with GPT-2's vocab.json, merges.txt and perhaps added_tokens.json.

    Args:
        path: the file or the folder.

    Returns:
        The arguments of `BPETokenizer`: merges, ids, special_tokens, pattern and added_tokens.

    Raises:
        FileError: a file is missing or damaged, or is not byte-level BPE with one of `PATTERNS`.
    """
    return _read_gpt2_folder(path) if path.is_dir() else _read_tokenizer_json(path)


def _read_tokenizer_json(path: Path) -> dict[str, Any]:
    content = _read_json_object(path)
    try:
        _require_supported(content, path)
        model = content["model"]
        special, added = _parse_added_tokens(content.get("added_tokens", []), path)
        merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        return _to_arguments(path, model["vocab"], merges, special, _parse_pattern(content, path), added)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        why = f"{type(error).__name__} {error}"
        raise FileError(f"{str(path)!r} is damaged: {why}; use the original file") from None


def _read_gpt2_folder(folder: Path) -> dict[str, Any]:
    vocab = _read_json_object(folder / "vocab.json")
    lines = read_text(folder / "merges.txt", MAX_TOKENIZER_BYTES).splitlines()  # also of Windows
    merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    merged = {*BYTE_CHARACTERS, *("".join(pair) for pair in merges)}
    special = {name: i for name, i in vocab.items() if name not in merged}  # such as <|endoftext|>
    special_added, added = _read_added_tokens(folder)
    return _to_arguments(folder, vocab, merges, special | special_added, "gpt2", added)


def _read_added_tokens(folder: Path) -> tuple[dict[str, int], list[AddedToken]]:
    """Return the tokens of added_tokens.json: the special ones, which special_tokens_map.json names, and others."""
    if not (folder / "added_tokens.json").exists():
        return {}, []
    ids = _read_json_object(folder / "added_tokens.json")
    path = folder / "special_tokens_map.json"
    named: set[str] = set()
    for value in (_read_json_object(path) if path.exists() else {}).values():
        for entry in value if isinstance(value, list) else [value]:
            named.add(str(entry.get("content") if isinstance(entry, dict) else entry))
    special = {name: i for name, i in ids.items() if name in named}
    return special, [AddedToken(name, i, normalized=False) for name, i in ids.items() if name not in named]


def _require_supported(content: dict[str, Any], path: Path) -> None:
    """Raise FileError for a tokenizer.json whose settings would give other ids here."""
    model = content["model"]
    kind = model.get("type", "BPE")  # the file of the original GPT-2 does not name it
    if kind != "BPE":
        raise FileError(f"{str(path)!r} is a tokenizer of the type {kind!r}: only BPE is supported")
    for name, supported in _SUPPORTED_VALUES.items():
        if model.get(name) not in supported:
            raise FileError(f"{str(path)!r} has {name} = {model[name]!r}, which is not supported")
    if content.get("normalizer") is not None:
        raise FileError(f"{str(path)!r} has a normalizer, which changes the text: that is not supported")
    processor = content.get("post_processor")
    if processor and processor["type"] != "ByteLevel":
        raise FileError(f"{str(path)!r} adds tokens after encoding ({processor['type']}): that is not supported")
    for name in ("truncation", "padding"):
        if content.get(name):
            warn_once(f"{str(path)!r} has a setting for {name}, which is left out: texts are encoded whole")


def _parse_added_tokens(entries: list[dict[str, Any]], path: Path) -> tuple[dict[str, int], list[AddedToken]]:
    """Return the ids of special tokens, and the words that are not special. Raise FileError for an unsupported one."""
    special, added = {}, []
    for entry in entries:
        if entry["special"]:
            special[entry["content"]] = entry["id"]
            continue
        for flag in ("single_word", "lstrip", "rstrip"):
            if entry.get(flag):
                name = entry["content"]
                raise FileError(f"{str(path)!r} has the added token {name!r} with {flag}, which is not supported")
        added.append(AddedToken(entry["content"], entry["id"], bool(entry["normalized"])))
    return special, added


def _to_arguments(
    path: Path,
    vocab: dict[str, int],
    merges: list[tuple[str, ...]],
    special: dict[str, int],
    pattern: str,
    added: Sequence[AddedToken] = (),
) -> dict[str, Any]:
    """Convert the tokens from text to bytes. Raise FileError for what is not byte-level or not an id."""
    try:
        if len(set(merges)) < len(merges):
            raise FileError(f"{str(path)!r} is damaged: it has a merge twice")
        merged = {*BYTE_CHARACTERS, *map("".join, merges)}
        named = special.keys() | ({token.text for token in added} - merged)
        for i in [*vocab.values(), *special.values(), *(token.id for token in added)]:
            if not isinstance(i, int) or isinstance(i, bool):
                raise FileError(f"{str(path)!r} is damaged: {i!r} is no id")
        return {
            "merges": [(text_to_token(first), text_to_token(second)) for first, second in merges],
            "ids": {text_to_token(name): i for name, i in vocab.items() if name not in named},
            "special_tokens": special,
            "pattern": pattern,
            "added_tokens": added,
        }
    except KeyError as error:
        raise FileError(f"{str(path)!r} is not byte-level: {error} stands for no byte") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise FileError(f"{str(path)!r} is damaged: {error}") from None


def _format_pre_tokenizer(pattern: str) -> dict[str, Any]:
    if pattern == "gpt2":
        return _BYTE_LEVEL
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL | {"use_regex": False}]}


def _parse_pattern(content: dict[str, Any], path: Path) -> str:
    """Return the key in `PATTERNS` of the pattern that the file splits text by. Raise FileError for another one."""
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
    raise FileError(f"{str(path)!r} splits text by another pattern: only GPT-2's and GPT-4's patterns are supported")


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path, MAX_TOKENIZER_BYTES))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(path)!r} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise FileError(f"{str(path)!r} is not a tokenizer: it is not a JSON object")
    return content

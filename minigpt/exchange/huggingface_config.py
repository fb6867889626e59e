"""The JSON files beside the weights of an exported model, in the format of Hugging Face transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigpt.config import ModelConfig
from minigpt.exchange.gpt2_variants import EPSILON
from minigpt.exchange.huggingface_import import ACTIVATIONS, REQUIRED_SETTINGS
from minigpt.exchange.huggingface_tokenizer import describe_tokenizer, find_end, format_tokenizer
from minigpt.runs.run import Run
from minigpt.system.files import write_atomic
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "tokenizer.model")
_ACTIVATION_NAMES = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}


def describe_gpt2(config: ModelConfig, tokens: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json for a GPT.

    Args:
        config: the shape of the exported model.
        tokens: the ids of the tokens that begin and end a text.
    """
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": _ACTIVATION_NAMES[config.activation],
        "embd_pdrop": 0.0,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": config.tied_head,
        "dtype": "float32",
        "layer_norm_epsilon": EPSILON,
        **tokens,
        **REQUIRED_SETTINGS,
    }


def find_begin_and_end(run: Run) -> dict[str, int | None]:
    """Return the ids of the tokens that begin a text without a prompt, and that end a text."""
    end = find_end(run.tokenizer, bool(run.info.instructions))
    return {"bos_token_id": run.encode_prompt("")[0], "eos_token_id": end}


def write_tokenizer_files(run: Run, folder: Path) -> None:
    """Write the tokenizer, and how to generate text.

    Raises:
        ExchangeError: the format has no such tokenizer.
        FileError: a file cannot be written.
    """
    block_size = run.config.model.block_size
    write_atomic(folder / "tokenizer.json", format_tokenizer(run.tokenizer))
    if isinstance(run.tokenizer, SentencePieceTokenizer):  # transformers reads tokenizer.json, and the import this
        run.tokenizer.save(folder / "tokenizer.model")
    described = describe_tokenizer(run.tokenizer, block_size, bool(run.info.instructions))
    write_json(folder / "tokenizer_config.json", described)
    sampling = {"max_length": block_size, "do_sample": True, **find_begin_and_end(run)}
    write_json(folder / "generation_config.json", sampling)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file. Raise FileError."""
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")

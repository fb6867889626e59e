"""Make a run of a model that nanoGPT has trained: its `ckpt.pt`, and the `meta.pkl` of its characters."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.errors import ConfigError, ExchangeError
from minigpt.exchange.characters import make_char_tokenizer
from minigpt.exchange.imported_run import write_imported_run
from minigpt.exchange.imported_weights import build_imported_gpt, convert_tensor, require_tensors
from minigpt.exchange.pickles import load_checkpoint, load_vocabulary
from minigpt.exchange.vocabulary_sizes import cut_rows
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import map_gpt2_names
from minigpt.runs.run import Run
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.loading import load_gpt2_tokenizer, load_tokenizer

CHECKPOINT, VOCABULARY = "ckpt.pt", "meta.pkl"
_GPT2_TOKENS = 50257  # nanoGPT pads them to 50,304
_SIZES = ("vocab_size", "block_size", "n_embd", "n_head", "n_layer")


def import_nanogpt(source: str | Path, out: str | Path | None = None, meta: str | Path | None = None) -> Run:
    """Make a run of a nanoGPT checkpoint and its vocabulary.

    Args:
        source: nanoGPT's out_dir, or a checkpoint in it.
        out: the run's directory; runs/<name> by default.
        meta: the vocabulary, meta.pkl, or a tokenizer's file or folder; by default the meta.pkl beside the checkpoint.
            A model with GPT-2's tokens has none.

    Raises:
        ExchangeError: the checkpoint or the vocabulary cannot be read, or they do not fit each other.
        DataError: GPT-2's tokenizer cannot be fetched.
        FileError: a file cannot be read, or the run cannot be written.
    """
    checkpoint = Path(source) / CHECKPOINT if Path(source).is_dir() else Path(source)
    model = load_nanogpt(checkpoint)
    tokenizer = _find_tokenizer(checkpoint, model.config.vocab_size, meta)
    if tokenizer.vocab_size > model.config.vocab_size:
        sizes = f"{tokenizer.vocab_size:,} tokens, and {str(checkpoint)!r} knows {model.config.vocab_size:,}"
        raise ExchangeError(f"the vocabulary does not fit: it has {sizes}; choose another --meta")
    return write_imported_run(cut_rows(model, tokenizer.vocab_size), tokenizer, source, out)


def load_nanogpt(path: Path) -> GPT:
    """Load a nanoGPT checkpoint in evaluation mode, its weights in float32.

    Raises:
        ExchangeError: it is no checkpoint of nanoGPT, or is damaged.
        FileError: the file cannot be read.
    """
    content = load_checkpoint(path)
    if "model" not in content or not isinstance(content.get("model_args"), dict):
        raise ExchangeError(f"{str(path)!r} is no checkpoint of nanoGPT, which has 'model' and 'model_args'")
    found = require_tensors(content["model"], path)
    config = _convert_config(content["model_args"], found, path)
    model = build_imported_gpt(config, f"{str(path)!r}")
    model.load_state_dict(_convert_weights(found, model, path), assign=True)
    return model.eval()


def _convert_config(given: dict[str, Any], found: dict[str, Tensor], path: Path) -> ModelConfig:
    """Return our configuration for nanoGPT's. Queries, keys and values have a bias if one of the biases is not zero."""
    sizes: dict[str, Any] = {name: given.get(name) for name in _SIZES}
    head, table = found.get("lm_head.weight"), found.get("transformer.wte.weight")
    try:
        return ModelConfig(
            **sizes,
            dropout=given.get("dropout", 0.0),
            activation="gelu_exact",
            qkv_bias=any(name.endswith("attn.c_attn.bias") and bool(bias.any()) for name, bias in found.items()),
            tied_head=head is None or table is None or torch.equal(head, table),
        )
    except ConfigError as error:
        raise ExchangeError(f"{str(path)!r} is damaged: {error}") from None


def _convert_weights(found: dict[str, Tensor], model: GPT, path: Path) -> dict[str, Tensor]:
    """Return the weights under our names. A bias that is missing is zero: nanoGPT can train without."""
    weights = {}
    for ours, expected in model.state_dict().items():
        theirs = _rename(ours, model.config)
        if theirs in found:
            weights[ours] = convert_tensor(found[theirs], theirs, tuple(expected.shape), path)
        elif ours.endswith(".bias"):
            weights[ours] = torch.zeros(expected.shape)
        else:
            raise ExchangeError(f"{str(path)!r} is not complete: {theirs} is missing")
    return weights


def _rename(ours: str, config: ModelConfig) -> str:
    """Return nanoGPT's name of a parameter."""
    return ours if ours.startswith("lm_head") else f"transformer.{map_gpt2_names(config)[ours]}"


def _find_tokenizer(checkpoint: Path, vocab_size: int, meta: str | Path | None) -> Tokenizer:
    """Return the characters of meta.pkl, the tokenizer that was named, or GPT-2's for a model that can have it."""
    path = checkpoint.with_name(VOCABULARY) if meta is None else Path(meta)
    if meta is not None or path.exists():
        return read_vocabulary(path) if path.suffix == ".pkl" else load_tokenizer(path)
    if vocab_size < _GPT2_TOKENS:
        raise ExchangeError(
            f"{str(checkpoint)!r} has no {VOCABULARY} beside it that names its {vocab_size:,} characters: add --meta "
            "data/NAME/meta.pkl"
        )
    return load_gpt2_tokenizer()


def read_vocabulary(path: Path) -> CharTokenizer:
    """Read the characters of nanoGPT's meta.pkl.

    Raises:
        ExchangeError: it holds other things than a vocabulary.
        FileError: the file cannot be read.
    """
    itos = load_vocabulary(path).get("itos")
    return make_char_tokenizer([itos.get(i) for i in range(len(itos))] if isinstance(itos, dict) else None, path)

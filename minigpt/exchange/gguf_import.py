"""Import a GGUF file of the architecture gpt2, the format of llama.cpp, as a run."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.errors import ConfigError, ExchangeError, MinigptError
from minigpt.exchange.gguf_file import GGUFFile, open_gguf
from minigpt.exchange.gguf_names import MODEL, RELU_SCALE_KEY, SENTENCEPIECE_KEY, map_gguf_names
from minigpt.exchange.gguf_tokenizer import RESERVED_TOKEN, TokenType, Vocabulary, rebuild_tokenizer
from minigpt.exchange.gpt2_variants import (
    EPSILON,
    compute_stored_shape,
    convert_variant,
    require_epsilon,
    require_inner,
)
from minigpt.exchange.imported_run import write_imported_run
from minigpt.exchange.imported_weights import build_imported_gpt
from minigpt.exchange.relu_as_gelu import unscale_gelu_to_relu
from minigpt.exchange.vocabulary_sizes import require_fitting_tokenizer
from minigpt.finetuning.vocabulary_resize import TABLES
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import map_gpt2_names
from minigpt.runs.run import Run
from minigpt.tokenizers.base import Tokenizer

_MISSING = object()
_EPSILON_KEY, _INNER_KEY = "gpt2.attention.layer_norm_epsilon", "gpt2.feed_forward_length"


def import_gguf(source: str | Path, out: str | Path | None = None) -> Run:
    """Make a run of the model and the tokenizer in a GGUF file.

    Args:
        source: the file, or an exported folder.
        out: the run's directory; runs/<name of the file> by default.

    Raises:
        ExchangeError: the file is damaged, or holds another architecture or tokenizer.
        FileError: the file cannot be read, or the run cannot be written.
    """
    model, tokenizer = load_gguf(source)
    return write_imported_run(model, tokenizer, source, out)


def load_gguf(source: str | Path) -> tuple[GPT, Tokenizer]:
    """Load the model of a GGUF file in evaluation mode, its weights in float32, and its tokenizer.

    A ReLU that the export wrote as a scaled GELU becomes a ReLU again.

    Args:
        source: the file.

    Raises:
        ExchangeError: the file is damaged, or holds another architecture or tokenizer.
        FileError: the file cannot be read.
    """
    path = Path(source)
    with open_gguf(path / MODEL if (path / MODEL).is_file() else path) as file:
        name = repr(str(source))
        architecture = file.keys.get("general.architecture")
        if architecture != "gpt2":
            raise ExchangeError(f"{name} holds a model of the architecture {architecture!r}: only 'gpt2' can be read")
        vocabulary = _read_vocabulary(file, name)
        scale = _read_relu_scale(file, name)
        config = _read_config(file, len(vocabulary.tokens), scale, name)
        epsilon = require_epsilon(_get(file, _EPSILON_KEY, float, name, EPSILON), _EPSILON_KEY, name)
        inner = require_inner(_get(file, _INNER_KEY, int, name, None), config, _INNER_KEY, name)
        weights = _read_weights(file, config, inner, name)
    convert_variant(weights, config, inner, epsilon)
    if scale is not None:
        _unscale(weights, config, scale)
    if vocabulary.tokens[-1] == RESERVED_TOKEN:
        config = _drop_last_token(weights, vocabulary, config)
    try:
        tokenizer = rebuild_tokenizer(vocabulary)
    except (MinigptError, KeyError, ValueError) as error:
        raise ExchangeError(f"the tokenizer in {name} cannot be read: {error}") from None
    require_fitting_tokenizer(tokenizer, config.vocab_size, name)
    model = build_imported_gpt(config, name)
    model.load_state_dict(weights, assign=True)
    return model.eval(), tokenizer


def _get(file: GGUFFile, key: str, kind: type | tuple[type, ...], name: str, default: Any = _MISSING) -> Any:
    """Return the value of a key. Raise ExchangeError if it is missing or of another type."""
    value = file.keys.get(key, default)
    if value is _MISSING:
        raise ExchangeError(f"{name} is not complete: it has no {key}")
    if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
        raise ExchangeError(f"{name} is damaged: {key} is of the wrong type")
    return value


def _read_config(file: GGUFFile, vocab_size: int, scale: float | None, name: str) -> ModelConfig:
    """Return the model's configuration. Raise ExchangeError for values that our GPT does not support."""
    try:
        config = ModelConfig(
            vocab_size=vocab_size,
            block_size=_get(file, "gpt2.context_length", int, name),
            n_embd=_get(file, "gpt2.embedding_length", int, name),
            n_head=_get(file, "gpt2.attention.head_count", int, name),
            n_layer=_get(file, "gpt2.block_count", int, name),
            activation="gelu" if scale is None else "relu",
            qkv_bias=True,
            tied_head=_has_tied_head(file),
        )
    except ConfigError as error:
        raise ExchangeError(f"{name} is damaged: {error}") from None
    return config


def _has_tied_head(file: GGUFFile) -> bool:
    """Return True if the head is the embedding: it is not in the file, or repeats the embedding."""
    head, embedding = (file.tensors.get(name) for name in ("output.weight", "token_embd.weight"))
    if head is None or embedding is None or head.shape != embedding.shape:
        return head is None
    return np.array_equal(file.get_tensor("output.weight"), file.get_tensor("token_embd.weight"))


def _read_relu_scale(file: GGUFFile, name: str) -> float | None:
    """Return the number that a ReLU was scaled by; None for a GELU."""
    scale = _get(file, RELU_SCALE_KEY, float, name, None)
    if scale is not None and not (math.isfinite(scale) and scale > 0 and math.frexp(scale)[0] == 0.5):
        raise ExchangeError(f"{name} is damaged: {RELU_SCALE_KEY} is no power of two")
    return None if scale is None else float(scale)


def _read_weights(file: GGUFFile, config: ModelConfig, inner: int, name: str) -> dict[str, Tensor]:
    """Read the tensors under our names, in float32, and check their shapes against the configuration."""
    state = build_imported_gpt(config, name).state_dict()
    shapes = {ours: compute_stored_shape(ours, tensor.shape, inner) for ours, tensor in state.items()}
    theirs = map_gguf_names(config)
    places = {ours: theirs[gpt2] for ours, gpt2 in map_gpt2_names(config).items()}
    for ours, place in places.items():
        if place not in file.tensors:
            raise ExchangeError(f"{name} is not complete: {place} is missing")
        if file.tensors[place].shape != shapes[ours]:
            shape = list(file.tensors[place].shape)
            raise ExchangeError(f"{name} is damaged: {place} is of shape {shape}, not {list(shapes[ours])}")
    weights = {}
    for ours, place in places.items():
        values = file.get_tensor(place)
        if not np.isfinite(values).all():
            raise ExchangeError(f"{name} is damaged: {place} holds a value that is not a finite number")
        weights[ours] = torch.from_numpy(values)
    if not config.tied_head:
        weights["lm_head.bias"] = torch.zeros(config.vocab_size)
    return weights


def _unscale(weights: dict[str, Tensor], config: ModelConfig, scale: float) -> None:
    """Undo `scale_relu_to_gelu` in place."""
    for layer in range(config.n_layer):
        names = [f"blocks.{layer}.ffwd.{part}" for part in ("up.weight", "up.bias", "down.weight")]
        up, up_bias, down = (weights[name] for name in names)
        weights |= dict(zip(names, unscale_gelu_to_relu(up, up_bias, down, scale), strict=True))


def _drop_last_token(weights: dict[str, Tensor], vocabulary: Vocabulary, config: ModelConfig) -> ModelConfig:
    """Remove the reserved token that the export added, in place, and return the new configuration."""
    del vocabulary.tokens[-1], vocabulary.types[-1]
    for name in TABLES:
        if name in weights:
            weights[name] = weights[name][:-1].clone()
    return dataclasses.replace(config, vocab_size=config.vocab_size - 1)


def _read_vocabulary(file: GGUFFile, name: str) -> Vocabulary:
    """Read the keys of the tokenizer."""
    tokens = _get(file, "tokenizer.ggml.tokens", list, name)
    types = _get(file, "tokenizer.ggml.token_type", np.ndarray, name, None)
    if not tokens or (types is not None and len(types) != len(tokens)):
        raise ExchangeError(f"{name} is damaged: it has {len(tokens):,} tokens, and another number of their types")
    model_file = _get(file, SENTENCEPIECE_KEY, np.ndarray, name, None)
    try:
        kinds = [TokenType.NORMAL] * len(tokens) if types is None else [TokenType(int(kind)) for kind in types]
    except (ValueError, OverflowError):
        raise ExchangeError(f"{name} is damaged: it has a token of an unknown type") from None
    return Vocabulary(
        model=_get(file, "tokenizer.ggml.model", str, name),
        tokens=list(tokens),
        types=kinds,
        pre=_get(file, "tokenizer.ggml.pre", str, name, None),
        merges=_get(file, "tokenizer.ggml.merges", list, name, []),
        unknown=_get(file, "tokenizer.ggml.unknown_token_id", int, name, None),
        sentencepiece=None if model_file is None else model_file.tobytes(),
    )

"""GPT-2 in the format of Hugging Face transformers: load it, and make a run of it.

A model is a folder with config.json and model.safetensors. Weights that are pickles are never opened, because a pickle
can run any code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.errors import ConfigError, ExchangeError, FileError, MissingExtraError
from minigpt.exchange.gpt2_variants import (
    EPSILON,
    compute_stored_shape,
    convert_variant,
    require_epsilon,
    require_inner,
)
from minigpt.exchange.huggingface_tokenizer import read_character_tokenizer
from minigpt.exchange.huggingface_weights import INDEX, read_huggingface_weights
from minigpt.exchange.imported_run import write_imported_run
from minigpt.exchange.imported_weights import build_imported_gpt, convert_to_float32
from minigpt.exchange.vocabulary_sizes import match_vocabulary_sizes, require_fitting_tokenizer
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import is_transposed, map_gpt2_names
from minigpt.runs.run import Run
from minigpt.system.files import require_inside
from minigpt.system.json_files import read_foreign_json
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.loading import load_tokenizer

MAX_CONFIG_BYTES = 2**20
FILE_PATTERNS = ["config.json", "*.safetensors", INDEX, "tokenizer.json", "vocab.json", "merges.txt"]
FILE_PATTERNS += ["added_tokens.json", "special_tokens_map.json", "tokenizer.model"]
ACTIVATIONS: dict[str, Literal["relu", "gelu", "gelu_exact"]] = {  # the first name of a function is the one we write
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
}
REQUIRED_SETTINGS = {  # GPT-2's config.json can hold other values; our GPT supports these only
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def import_gpt2(
    source: str | Path, out: str | Path | None = None, say: Callable[[str], None] = lambda message: None
) -> Run:
    """Make a run of a GPT-2 and its tokenizer.

    Args:
        source: a folder that transformers has saved, or the name of a model on the Hugging Face hub.
        out: the run's directory; runs/<name> by default.
        say: is called with a message about files, rows and tokens that are left out.

    Raises:
        ExchangeError: there is no tokenizer that fits the model, and as `load_gpt2` does.
    """
    folder = _find_folder(source)
    model = load_gpt2(folder, say)
    tokenizer = read_tokenizer(folder)
    model, tokenizer = match_vocabulary_sizes(model, tokenizer, say)
    require_fitting_tokenizer(tokenizer, model.config.vocab_size, f"{str(folder)!r}")
    return write_imported_run(model, tokenizer, source, out)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a folder, also one of an export: characters, or SentencePiece's own file."""
    path = folder / "tokenizer.json"
    if path.is_file() and (characters := read_character_tokenizer(path)):
        return characters
    own = folder / "tokenizer.model"
    try:
        return load_tokenizer(own if own.is_file() else folder)
    except FileError as error:
        raise ExchangeError(f"{str(folder)!r} has no tokenizer that can be read: {error}") from None


def load_gpt2(source: str | Path, say: Callable[[str], None] = lambda message: None) -> GPT:
    """Load a GPT-2 in evaluation mode, its weights in float32.

    Args:
        source: a folder that transformers has saved, or the name of a model on the Hugging Face hub.
        say: is called with a message about files that are left out.

    Raises:
        ExchangeError: it is not a GPT-2, or its weights are missing, pickled or of the wrong shape.
        FileError: a file cannot be read.
        MissingExtraError: the hub is needed and huggingface_hub is not installed.
    """
    folder = _find_folder(source)
    content = _read_config(folder / "config.json")
    config = _convert_config(content, folder)
    epsilon = require_epsilon(content.get("layer_norm_epsilon", EPSILON), "layer_norm_epsilon", f"{str(folder)!r}")
    inner = require_inner(content.get("n_inner"), config, "n_inner", f"{str(folder)!r}")
    model = build_imported_gpt(config, f"{str(folder / 'config.json')!r}")
    weights = _read_weights(folder, model, inner, say)
    convert_variant(weights, config, inner, epsilon)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _find_folder(source: str | Path) -> Path:
    """Return a local folder, downloaded if need be. Raise FileError if one of its files is a link to elsewhere."""
    folder = Path(source) if Path(source).is_dir() else _download(str(source))
    require_inside(folder, [path for pattern in FILE_PATTERNS for path in folder.glob(pattern)])
    return folder


def _download(name: str) -> Path:
    """Download a model from the Hugging Face hub and return its folder."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError("huggingface_hub", "exchange") from None
    try:
        return Path(snapshot_download(name, allow_patterns=FILE_PATTERNS))
    except Exception as error:  # its own errors, the network's, and ValueError for an impossible name
        reason = str(error).strip().split("\n")[0]
        raise ExchangeError(f"{name!r} is no folder here, and the hub does not give it: {reason}") from None


def _read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a GPT-2."""
    if not path.exists():
        raise ExchangeError(f"{str(path.parent)!r} is no model of transformers: it has no config.json")
    content = read_foreign_json(path, MAX_CONFIG_BYTES)
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != "gpt2":
        raise ExchangeError(f"{str(path.parent)!r} holds a model of the architecture {kind!r}: only 'gpt2' can be read")
    return content


def _convert_config(content: dict[str, Any], folder: Path) -> ModelConfig:
    """Return our config for a GPT-2's. Raise ExchangeError for a setting that our GPT does not support."""
    for name, value in REQUIRED_SETTINGS.items():
        if content.get(name, value) != value:
            raise ExchangeError(f"{str(folder)!r} has {name} {content[name]!r}, and only {value!r} can be read")
    activation = content.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ExchangeError(f"{str(folder)!r} has the activation {activation!r}, and only {known} can be read")
    try:
        config = ModelConfig(
            vocab_size=content.get("vocab_size", 50257),
            block_size=content.get("n_positions", 1024),
            n_embd=content.get("n_embd", 768),
            n_head=content.get("n_head", 12),
            n_layer=content.get("n_layer", 12),
            dropout=content.get("resid_pdrop", 0.1),
            activation=ACTIVATIONS[activation],
            qkv_bias=True,
            tied_head=content.get("tie_word_embeddings", True),
        )
    except ConfigError as error:
        raise ExchangeError(f"{str(folder / 'config.json')!r} is damaged: {error}") from None
    return config


def _read_weights(folder: Path, model: GPT, inner: int, say: Callable[[str], None]) -> dict[str, Tensor]:
    """Read the tensors of a folder under our names, in float32, and check their shapes against `model`."""
    found = read_huggingface_weights(folder, say)
    if model.config.tied_head and "lm_head.weight" in found:  # either name may have the one tensor
        found.setdefault("wte.weight", found["lm_head.weight"])
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = {}
    for ours, theirs in map_gpt2_names(model.config).items():
        if theirs not in found:
            raise ExchangeError(f"{str(folder)!r} is not complete: {theirs} is missing")
        tensor, shape = found[theirs], list(compute_stored_shape(ours, shapes[ours], inner))
        if list(tensor.shape) != (shape[::-1] if is_transposed(theirs) else shape):
            wrong = f"{theirs} is of shape {list(tensor.shape)}"
            raise ExchangeError(f"{str(folder)!r} does not fit its config.json: {wrong}")
        weights[ours] = convert_to_float32(tensor.T if is_transposed(theirs) else tensor, theirs, folder)
    if not model.config.tied_head:
        weights["lm_head.bias"] = torch.zeros(model.config.vocab_size)
    return weights

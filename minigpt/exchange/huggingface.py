"""GPT-2 as transformers keeps it: a folder, or a name on the hub, to a GPT and back.

The folder holds config.json and model.safetensors; weights that are pickles are never opened. GPT-2's
matrices are stored (inputs, outputs), transposed against PyTorch's own.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.errors import ConfigError, ExchangeError, MissingExtraError
from minigpt.model.gpt import GPT
from minigpt.model.meta_init import build_empty
from minigpt.system.files import explain_os_errors, read_text, require_inside, write_atomic
from minigpt.system.safetensors_files import open_safetensors

LARGEST_CONFIG = 2**20  # bytes
FILES = ["config.json", "*.safetensors", "tokenizer.json", "vocab.json", "merges.txt"]
ACTIVATIONS: dict[str, Literal["relu", "gelu"]] = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
FIXED = {  # what GPT-2 could have otherwise, and this package's GPT doesn't
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
BLOCK = {  # ours, theirs
    "ln1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "ln2": "ln_2",
    "ffwd.up": "mlp.c_fc",
    "ffwd.down": "mlp.c_proj",
}
OUTSIDE = {
    "token_embedding_table.weight": "wte.weight",
    "position_embedding_table.weight": "wpe.weight",
    "ln_f.weight": "ln_f.weight",
    "ln_f.bias": "ln_f.bias",
}


def load_gpt2(source: str | Path) -> GPT:
    """The GPT-2 in a local folder, or of that name on the hub, in evaluation mode.

    Raises ExchangeError for what is no GPT-2, or whose weights are missing, pickled or oddly shaped;
    FileError for what can't be read; MissingExtraError for a name on the hub without huggingface_hub.
    """
    folder = folder_of(source)
    config = model_config(read_config(folder / "config.json"), folder)
    try:
        model = build_empty(config)
    except RuntimeError:
        raise ExchangeError(f"{str(folder / 'config.json')!r} is damaged: no model can be that large") from None
    assert isinstance(model, GPT)
    model.load_state_dict(read_gpt2_weights(folder, model), assign=True)
    return model.eval()


def save_gpt2(model: GPT, folder: str | Path) -> None:
    """Write a folder that `GPT2LMHeadModel.from_pretrained` opens. Raises ExchangeError for a head with a bias."""
    if model.lm_head is not None and model.lm_head.bias.any():
        raise ExchangeError("GPT-2 has no bias in its last layer, and this model has: train it with --tied-head")
    config, folder = model.config, Path(folder)
    weights = {
        (theirs if theirs.startswith("lm_head") else f"transformer.{theirs}"): tensor.contiguous()
        for theirs, tensor in to_gpt2(model).items()
    }
    content = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": "gelu_new" if config.activation == "gelu" else "relu",
        "embd_pdrop": 0.0,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": None,
        "eos_token_id": None,
        **FIXED,
    }
    with explain_os_errors("create the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "model.safetensors", safetensors.torch.save(weights, metadata={"format": "pt"}))
    write_atomic(folder / "config.json", json.dumps(content, indent=2).encode() + b"\n")


def folder_of(source: str | Path) -> Path:
    """A local folder, or the one that a name on the hub is fetched to. Raises FileError for links out of it."""
    folder = Path(source) if Path(source).is_dir() else fetched(str(source))
    require_inside(folder, [path for pattern in FILES for path in folder.glob(pattern)])
    return folder


def fetched(name: str) -> Path:
    """The folder that a name on the hub is fetched to."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError("huggingface_hub", "exchange") from None
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # it raises its own, those of the network, and ValueError for a name that can't be
        reason = str(error).strip().split("\n")[0]
        raise ExchangeError(f"{name!r} is no folder here, and the hub does not give it: {reason}") from None


def read_config(path: Path) -> dict[str, Any]:
    """A GPT-2's config.json."""
    if not path.exists():
        raise ExchangeError(f"{str(path.parent)!r} is no model of transformers: it has no config.json")
    try:
        content = json.loads(read_text(path, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{str(path)!r} is damaged: not JSON ({error})") from None
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != "gpt2":
        raise ExchangeError(f"{str(path.parent)!r} holds a model of the architecture {kind!r}: only 'gpt2' can be read")
    return content


def model_config(content: dict[str, Any], folder: Path) -> ModelConfig:
    """The shape that a GPT-2's config.json tells; ExchangeError if this package's GPT can't have it."""
    for name, value in FIXED.items():
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
    inner = content.get("n_inner")
    if inner not in (None, 4 * config.n_embd):
        raise ExchangeError(f"{str(folder)!r} has n_inner {inner!r}, and only 4 times n_embd can be read")
    return config


def renamed(config: ModelConfig) -> dict[str, str]:
    """Our names and theirs, for every parameter of a GPT-2 of that shape."""
    names = dict(OUTSIDE)
    for layer in range(config.n_layer):
        for ours, theirs in BLOCK.items():
            names |= {f"blocks.{layer}.{ours}.{part}": f"h.{layer}.{theirs}.{part}" for part in ("weight", "bias")}
    return names if config.tied_head else names | {"lm_head.weight": "lm_head.weight"}


def turned(theirs: str) -> bool:
    """Whether GPT-2 stores that parameter transposed."""
    return re.search(r"(attn|mlp)\.c_\w+\.weight$", theirs) is not None


def to_gpt2(model: GPT) -> dict[str, Tensor]:
    """A GPT's parameters under GPT-2's names, in its layout."""
    weights = model.state_dict()
    for layer, block in enumerate(model.blocks):
        qkv = block.attention.qkv
        weights.setdefault(f"blocks.{layer}.attention.qkv.bias", qkv.weight.new_zeros(qkv.out_features))
    names = renamed(model.config)
    return {theirs: weights[ours].T if turned(theirs) else weights[ours] for ours, theirs in names.items()}


def read_gpt2_weights(folder: Path, model: GPT) -> dict[str, Tensor]:
    """The tensors of a folder under our names and in float32, each of the shape that `model` has for it."""
    whole = folder / "model.safetensors"  # or, of a large model, parts with a number
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        pickled = next((p.name for p in sorted(folder.glob("*.bin"))), None)
        why = f"its {pickled} is a pickle, which could run anything" if pickled else "it has no model.safetensors"
        raise ExchangeError(f"{str(folder)!r} cannot be read: {why}; save it with safe_serialization=True")
    found: dict[str, Tensor] = {}
    for file in files:
        with open_safetensors(file, ExchangeError) as content:
            found |= {name.removeprefix("transformer."): content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = {}
    for ours, theirs in renamed(model.config).items():
        if theirs not in found:
            raise ExchangeError(f"{str(folder)!r} is not complete: {theirs} is missing")
        tensor, shape = found[theirs], list(shapes[ours])
        if list(tensor.shape) != (shape[::-1] if turned(theirs) else shape):
            raise ExchangeError(
                f"{str(folder)!r} does not fit its config.json: {theirs} is of shape {list(tensor.shape)}"
            )
        tensor = tensor.T if turned(theirs) else tensor
        if not tensor.is_floating_point():
            raise ExchangeError(f"{str(folder)!r} cannot be read: the numbers of {theirs} are of type {tensor.dtype}")
        weights[ours] = tensor.to(torch.float32).contiguous()
        if not weights[ours].isfinite().all():
            raise ExchangeError(f"{str(folder)!r} is damaged: {theirs} holds a value that is not a finite number")
    if not model.config.tied_head:
        weights["lm_head.bias"] = torch.zeros(model.config.vocab_size)
    return weights

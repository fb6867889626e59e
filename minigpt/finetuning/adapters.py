"""Adapters on disk, in PEFT's format: adapter_config.json and adapter_model.safetensors, a few kilobytes.

A GPT's layers have the names that they have in transformers' GPT-2, so that `PeftModel.from_pretrained` opens what is
written here over a GPT-2 written by exchange/huggingface.py, and the other way round; the lecture's have its own. Which
base an adapter was trained on is kept as a fingerprint in the metadata of its tensors.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError, ExchangeError
from minigpt.finetuning.adapter_tokens import TOKENIZER, TOKENS, with_saved_tokens
from minigpt.finetuning.lora import (
    Adapter,
    Shape,
    adapter_names,
    fold,
    linear_layers,
    lora_layers,
    put_beside,
    shares_in_use,
    unmerge,
    use_adapters,
)
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import BLOCK_NAMES
from minigpt.runs.run import Run
from minigpt.system.files import explain_os_errors, read_text, require_inside, write_atomic
from minigpt.system.untrusted_tensors import read_tensors

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
ADAPTER = "adapter"  # the folder of an adapter within that of a run
LARGEST_CONFIG = 2**20  # bytes
PREFIX = "base_model.model."
PARTS = {"A": "lora_A.weight", "B": "lora_B.weight", "lengths": "lora_magnitude_vector"}
FIXED: dict[str, tuple[Any, ...]] = {  # what an adapter of PEFT's could have otherwise, and this package's cannot
    "bias": ("none",),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "lora_bias": (None, False),
    "layer_replication": (None,),
    "use_qalora": (None, False),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),  # others change the base
    "alora_invocation_tokens": (None,),
}


def base_fingerprint(model: nn.Module) -> str:
    """The SHA-256 of a model's weights without its adapters, in hexadecimal."""
    digest = hashlib.sha256()
    merged = [layer for layer in lora_layers(model).values() if layer.kept]
    for layer in merged:
        layer.unmerge()
    for name, tensor in sorted(model.state_dict().items()):
        if ".adapters." not in name and not name.endswith(".tril"):
            digest.update(name.replace(".base.", ".").encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for layer in merged:
        layer.merge()
    return digest.hexdigest()


def theirs(model: nn.Module, path: str) -> str:
    """What PEFT calls the layer at that path."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", path)
    if isinstance(model, GPT) and found and found[2] in BLOCK_NAMES:
        return f"{PREFIX}transformer.h.{found[1]}.{BLOCK_NAMES[found[2]]}"
    return PREFIX + path


def save_adapter(model: nn.Module, folder: str | Path, name: str = "default", base_sha256: str | None = None) -> None:
    """Write one of a model's adapters, for the base of that fingerprint, by default this model's own.

    Raises ConfigError for a name that the model doesn't have, FileError.
    """
    layers = {path: layer.adapters[name] for path, layer in lora_layers(model).items() if name in layer.adapters}
    if not layers:
        raise ConfigError(f"there is no adapter {name!r}: known are {', '.join(adapter_names(model)) or 'none'}")
    shape = next(iter(layers.values())).shape
    weights = {
        f"{theirs(model, path)}.{PARTS[part]}": tensor.detach().cpu().contiguous()
        for path, adapter in layers.items()
        for part, tensor in adapter.named_parameters()
    }
    targets = {theirs(model, path).removeprefix(PREFIX) for path in layers}
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if isinstance(model, GPT) else None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "lora_dropout": shape.dropout,
        "use_rslora": shape.rslora,
        "use_dora": shape.dora,
        "target_modules": sorted(targets),
        "fan_in_fan_out": isinstance(model, GPT),  # GPT-2's matrices lie transposed
        "bias": "none",
    }
    folder = Path(folder)
    with explain_os_errors("create the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "base_sha256": base_sha256 or base_fingerprint(model)}
    write_atomic(folder / WEIGHTS, safetensors.torch.save(weights, metadata))
    write_atomic(folder / CONFIG, json.dumps(content, indent=2).encode() + b"\n")


def load_adapter(model: nn.Module, folder: str | Path, name: str = "default") -> list[str]:
    """Put an adapter from a folder beside a model's layers and use it, with those in use; the names of the layers.

    Raises ExchangeError for what is no LoRA adapter, is pickled, belongs to another base or does not fit this one,
    FileError for what cannot be read, ConfigError for a name that is taken.
    """
    if name in adapter_names(model):
        raise ConfigError(f"the model has an adapter named {name!r} already: choose another name")
    folder = Path(folder)
    require_inside(folder, [folder / CONFIG, folder / WEIGHTS, folder / TOKENS, folder / TOKENIZER])
    shape = read_shape(folder)
    weights, base = read_weights(folder)
    if base not in (None, base_fingerprint(model)):
        raise ExchangeError(
            f"{str(folder)!r} is an adapter for another base than this: take it with the one it was made for"
        )
    unmerge(model)
    layers = linear_layers(model)
    names = {path: [f"{theirs(model, path)}.{part}" for part in PARTS.values()] for path in layers}
    stray = weights.keys() - {name for some in names.values() for name in some}
    if stray:
        raise ExchangeError(f"{str(folder)!r} does not fit this model: there is no layer for its {min(stray)}")
    adapters: dict[str, Adapter] = {}
    for path in (path for path, some in names.items() if weights.keys() & some):
        name_of_a = f"{theirs(model, path)}.{PARTS['A']}"
        if name_of_a not in weights:
            raise ExchangeError(f"{str(folder)!r} is not complete: {name_of_a} is missing")
        found = weights[name_of_a]
        if found.dim() != 2 or found.shape[0] != shape.rank:  # before there is memory for it
            wrong = f"{name_of_a} is of shape {list(found.shape)}, and the rank is {shape.rank}"
            raise ExchangeError(f"{str(folder)!r} does not fit this model: {wrong}")
        adapters[path] = Adapter(layers[path], shape)
    for path, adapter in adapters.items():
        for part, parameter in adapter.named_parameters():
            key = f"{theirs(model, path)}.{PARTS[part]}"
            if key not in weights:
                raise ExchangeError(f"{str(folder)!r} is not complete: {key} is missing")
            if weights[key].shape != parameter.shape:
                wrong = f"{key} is of shape {list(weights[key].shape)}, not {list(parameter.shape)}"
                raise ExchangeError(f"{str(folder)!r} does not fit this model: {wrong}")
            parameter.data.copy_(weights[key])
    before = shares_in_use(model)
    model.requires_grad_(False)
    for path, adapter in adapters.items():
        put_beside(model, path, adapter, name)
    use_adapters(model, {**before, name: 1.0})
    return list(adapters)


def with_adapters(run: Run, wanted: Sequence[str], scale: float = 1.0) -> Run:
    """The run with adapters, each as FOLDER or FOLDER:SHARE, added to its weights for good, all of them by `scale`.

    FOLDER may also be a run that has an adapter; one that brings tokens along gives the run those too. Raises as
    `load_adapter` does, ConfigError for a share that is none.
    """
    shares, bring = {}, []
    for number, each in enumerate(wanted):
        folder, share = split_share(each)
        inner = Path(folder) / ADAPTER
        path = inner if inner.is_dir() else Path(folder)
        load_adapter(run.model, path, f"{number}")
        shares[f"{number}"] = share * scale
        if (path / TOKENS).exists():
            bring.append(path)
    if len(bring) > 1:
        raise ConfigError(f"{str(bring[0])!r} and {str(bring[1])!r} both bring tokens of their own: use one of them")
    use_adapters(run.model, shares)
    fold(run.model)
    if not all(tensor.isfinite().all() for tensor in run.model.state_dict().values()):
        raise ExchangeError(f"with {', '.join(wanted)} the weights are no finite numbers any more: lower the share")
    return with_saved_tokens(run, bring[0]) if bring else run


def split_share(adapter: str) -> tuple[str, float]:
    """FOLDER:SHARE as its two parts; of a FOLDER alone the share is 1."""
    folder, colon, share = adapter.rpartition(":")
    if not colon or Path(adapter).exists():
        return adapter, 1.0
    try:
        if math.isfinite(float(share)):
            return folder, float(share)
    except ValueError:
        pass
    raise ConfigError(f"{share!r} is no share of an adapter: write FOLDER or FOLDER:0.7")


def read_shape(folder: Path) -> Shape:
    """What an adapter_config.json says; ExchangeError if this package cannot do that."""
    path = folder / CONFIG
    if not path.is_file():
        raise ExchangeError(f"{str(folder)!r} is no adapter: it has no {CONFIG}")
    try:
        content: Any = json.loads(read_text(path, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{str(path)!r} is damaged: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("peft_type") != "LORA":
        raise ExchangeError(f"{str(path)!r} is not of a LoRA adapter, and only those can be read")
    for name, possible in FIXED.items():
        if content.get(name, possible[0]) not in possible:
            raise ExchangeError(f"{str(path)!r} has {name} {content[name]!r}, and only {possible[0]!r} can be read")
    numbers = [content.get(name, default) for name, default in (("lora_alpha", 8), ("lora_dropout", 0.0))]
    switches = [content.get(name, False) for name in ("use_rslora", "use_dora")]
    if not all(isinstance(n, int | float) and abs(n) < 1e30 for n in numbers) or {*map(type, switches)} != {bool}:
        raise ExchangeError(f"{str(path)!r} is damaged: lora_alpha, lora_dropout, use_rslora or use_dora cannot be so")
    try:
        return Shape(content.get("r", 8), float(numbers[0]), float(numbers[1]), *switches)
    except ConfigError as error:
        raise ExchangeError(f"{str(path)!r} is damaged: {error}") from None


def read_weights(folder: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of an adapter, and the fingerprint of its base if it has one."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / PICKLED).exists()
        why = f"its {PICKLED} is a pickle, which could run anything" if pickled else f"it has no {WEIGHTS}"
        raise ExchangeError(f"{str(folder)!r} cannot be read: {why}; save it as safetensors")
    weights, metadata = read_tensors(path)
    return weights, metadata.get("base_sha256")

"""Adapters on disk in PEFT's format: adapter_config.json and adapter_model.safetensors, a few kilobytes.

The layers of our GPT are written under the names of transformers' GPT-2. So `PeftModel.from_pretrained` opens our
adapters over a GPT-2 from exchange/huggingface.py, and we open PEFT's. The layers of the lecture's model keep their own
names. The metadata of the tensors hold a fingerprint of the base, so that an adapter is refused over another base.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from minigpt.acceleration import accelerate
from minigpt.errors import ConfigError, ExchangeError
from minigpt.finetuning.adapter_config import CONFIG, AdapterConfig, read_adapter_config
from minigpt.finetuning.lora import (
    Adapter,
    add_adapter,
    find_lora_layers,
    list_adapters,
    merge_and_unload,
    unmerge,
    use_adapters,
)
from minigpt.finetuning.target_layers import find_linear_layers
from minigpt.finetuning.vocabulary_resize import TOKENIZER, TOKENS, load_new_tokens
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import BLOCK_NAMES
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.files import explain_os_errors, require_inside, write_atomic
from minigpt.system.safetensors_files import read_tensors

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
PARTS = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"}  # our name and PEFT's


def compute_base_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights without its adapters, in hexadecimal."""
    digest = hashlib.sha256()
    merged = [layer for layer in find_lora_layers(model).values() if layer.unmerged_base]
    for layer in merged:
        layer.unmerge()
    for name, tensor in sorted(model.state_dict().items()):
        if ".adapters." not in name and not name.endswith(".tril"):
            digest.update(name.replace(".base.", ".").encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for layer in merged:
        layer.merge()
    return digest.hexdigest()


def save_adapter(model: nn.Module, folder: str | Path, name: str = "default", base_sha256: str | None = None) -> None:
    """Write one of a model's adapters.

    Args:
        model: a model with adapters.
        folder: where the two files go.
        name: the adapter's name.
        base_sha256: the base's fingerprint; computed from the model by default.

    Raises:
        ConfigError: the model has no adapter of that name.
        FileError: a file cannot be written.
    """
    layers = {path: layer.adapters[name] for path, layer in find_lora_layers(model).items() if name in layer.adapters}
    if not layers:
        raise ConfigError(f"there is no adapter {name!r}: known are {', '.join(list_adapters(model)) or 'none'}")
    config = next(iter(layers.values())).config
    peft_names = {path: _convert_to_peft_name(model, path) for path in layers}
    configs = {peft_names[path].removeprefix(PREFIX): adapter.config for path, adapter in layers.items()}
    weights = {
        f"{peft_names[path]}.{PARTS[part]}": tensor.detach().cpu().contiguous()
        for path, adapter in layers.items()
        for part, tensor in adapter.named_parameters()
    }
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if isinstance(model, GPT) else None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "use_dora": config.dora,
        "rank_pattern": {name: each.rank for name, each in configs.items() if each.rank != config.rank},
        "alpha_pattern": {name: each.alpha for name, each in configs.items() if each.alpha != config.alpha},
        "target_modules": sorted(configs),
        "fan_in_fan_out": isinstance(model, GPT),  # GPT-2 stores its matrices transposed
        "bias": "none",
    }
    folder = Path(folder)
    with explain_os_errors("create the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "base_sha256": base_sha256 or compute_base_fingerprint(model)}
    write_atomic(folder / WEIGHTS, safetensors.torch.save(weights, metadata))
    write_atomic(folder / CONFIG, json.dumps(content, indent=2).encode() + b"\n")


def load_adapter(model: nn.Module, folder: str | Path, name: str = "default") -> list[str]:
    """Read an adapter and add it to a model, in place; it is active beside those that are active already.

    Args:
        model: the base that the adapter was made for, with or without other adapters.
        folder: an adapter's folder, ours or PEFT's.
        name: the name that the adapter gets.

    Returns:
        The paths of the layers that have the adapter.

    Raises:
        ExchangeError: it is not a LoRA adapter, is a pickle, belongs to another base or does not fit this one.
        FileError: a file cannot be read.
        ConfigError: the name is taken.
    """
    if name in list_adapters(model):
        raise ConfigError(f"the model has an adapter named {name!r} already: choose another name")
    folder = Path(folder)
    require_inside(folder, [folder / CONFIG, folder / WEIGHTS, folder / TOKENS, folder / TOKENIZER])
    config = read_adapter_config(folder)
    weights, base = _read_weights(folder)
    if base not in (None, compute_base_fingerprint(model)):
        raise ExchangeError(
            f"{str(folder)!r} is an adapter for another base than this: take it with the one it was made for"
        )
    unmerge(model)
    adapters = _build_adapters(model, config, weights, folder)
    add_adapter(model, adapters, name)
    return list(adapters)


def apply_adapters(run: Run, adapters: Sequence[str], scale: float = 1.0) -> Run:
    """Merge adapters from disk into a run's model, in place, and return the run.

    Args:
        run: the base.
        adapters: each FOLDER or FOLDER:SCALE; FOLDER is an adapter's folder or a fine-tuned run. An adapter that has
            new tokens adds them to the run.
        scale: a factor for all of them.

    Raises:
        ConfigError: a scale is not a number, or two adapters have new tokens.
        ExchangeError, FileError: as `load_adapter` does.
    """
    scales, with_tokens = {}, []
    for number, adapter in enumerate(adapters):
        path, own_scale = _split_scale(adapter)
        inside = RunDirectory(path).adapter
        path = inside if inside.is_dir() else path
        load_adapter(run.model, path, f"{number}")
        scales[f"{number}"] = own_scale * scale
        if (path / TOKENS).exists():
            with_tokens.append(path)
    if len(with_tokens) > 1:
        both = f"{str(with_tokens[0])!r} and {str(with_tokens[1])!r}"
        raise ConfigError(f"{both} both bring tokens of their own: use one of them")
    use_adapters(run.model, scales)
    merge_and_unload(run.model)
    if not all(tensor.isfinite().all() for tensor in run.model.state_dict().values()):
        raise ExchangeError(f"with {', '.join(adapters)} the weights are no finite numbers any more: lower the scale")
    run = load_new_tokens(run, with_tokens[0]) if with_tokens else run
    accelerate(run.model, run.config)
    return run


def _split_scale(adapter: str) -> tuple[Path, float]:
    """Split FOLDER:SCALE; the scale of a FOLDER alone is 1."""
    folder, colon, scale = adapter.rpartition(":")
    if not colon or Path(adapter).exists():
        return Path(adapter), 1.0
    try:
        if math.isfinite(float(scale)):
            return Path(folder), float(scale)
    except ValueError:
        pass
    raise ConfigError(f"{scale!r} is not the scale of an adapter: write FOLDER or FOLDER:0.7")


def _convert_to_peft_name(model: nn.Module, path: str) -> str:
    """Return what PEFT calls the layer at that path."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", path)
    if isinstance(model, GPT) and found and found[2] in BLOCK_NAMES:
        return f"{PREFIX}transformer.h.{found[1]}.{BLOCK_NAMES[found[2]]}"
    return PREFIX + path


def _build_adapters(
    model: nn.Module, settings: AdapterConfig, weights: Mapping[str, Tensor], folder: Path
) -> dict[str, Adapter]:
    """Return an adapter for each layer that has weights. Raise ExchangeError if the weights do not fit the model."""
    layers = find_linear_layers(model)
    peft_names = {path: _convert_to_peft_name(model, path) for path in layers}
    stray = weights.keys() - {f"{name}.{part}" for name in peft_names.values() for part in PARTS.values()}
    if stray:
        raise ExchangeError(f"{str(folder)!r} does not fit this model: there is no layer for its {min(stray)}")
    adapters: dict[str, Adapter] = {}
    for path, name in peft_names.items():
        if not any(f"{name}.{part}" in weights for part in PARTS.values()):
            continue
        name_of_a = f"{name}.{PARTS['A']}"
        if name_of_a not in weights:
            raise ExchangeError(f"{str(folder)!r} is not complete: {name_of_a} is missing")
        found, config = weights[name_of_a], settings.for_layer(name.removeprefix(PREFIX))
        if found.dim() != 2 or found.shape[0] != config.rank:  # checked before memory is allocated for that rank
            wrong = f"{name_of_a} is of shape {list(found.shape)}, and the rank is {config.rank}"
            raise ExchangeError(f"{str(folder)!r} does not fit this model: {wrong}")
        adapters[path] = Adapter(layers[path], config)
        for part, parameter in adapters[path].named_parameters():
            key = f"{name}.{PARTS[part]}"
            if key not in weights:
                raise ExchangeError(f"{str(folder)!r} is not complete: {key} is missing")
            if weights[key].shape != parameter.shape:
                wrong = f"{key} is of shape {list(weights[key].shape)}, not {list(parameter.shape)}"
                raise ExchangeError(f"{str(folder)!r} does not fit this model: {wrong}")
            parameter.data.copy_(weights[key])
    return adapters


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read an adapter's tensors and the fingerprint of its base, which PEFT does not write."""
    path = folder / WEIGHTS
    if not path.is_file():
        is_pickled = (folder / PICKLE).exists()
        why = f"its {PICKLE} is a pickle, which could run anything" if is_pickled else f"it has no {WEIGHTS}"
        raise ExchangeError(f"{str(folder)!r} cannot be read: {why}; save it as safetensors")
    weights, metadata = read_tensors(path)
    return weights, metadata.get("base_sha256")

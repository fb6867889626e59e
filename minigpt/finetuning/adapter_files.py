"""Adapters on disk in PEFT's format: adapter_config.json and adapter_model.safetensors, a few kilobytes.

The layers of our GPT are written under the names of transformers' GPT-2. So `PeftModel.from_pretrained` opens our
adapters over a GPT-2 that exchange/huggingface_export.py has written, and we open PEFT's. The layers of the lecture's
model keep their own names. The metadata of the tensors hold a fingerprint of the base, so that an adapter is refused
over another base.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from minigpt.acceleration import accelerate
from minigpt.errors import ConfigError, ExchangeError
from minigpt.finetuning.adapter_config import CONFIG, AdapterConfig, read_adapter_config
from minigpt.finetuning.adapter_replacements import convert_replacements, read_replacements
from minigpt.finetuning.lora import (
    add_adapter,
    find_lora_layers,
    list_adapters,
    merge_and_unload,
    require_compatible_adapter,
    unmerge,
    use_adapters,
)
from minigpt.finetuning.lora_layer import LoRAConfig, LowRankUpdate
from minigpt.finetuning.peft_names import PARTS, PREFIX, TOKEN_ROWS, convert_to_base_name, convert_to_peft_name
from minigpt.finetuning.replaced_weights import HEAD, is_head_untied, untie_head
from minigpt.finetuning.target_layers import find_linear_layers
from minigpt.finetuning.vocabulary_resize import TOKENIZER, TOKENS, load_new_tokens
from minigpt.model.gpt import GPT
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.files import create_folder, require_inside, write_atomic
from minigpt.system.safetensors_files import read_tensors

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"


def compute_base_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights without its adapters, in hexadecimal."""
    digest = hashlib.sha256()
    merged = [layer for layer in find_lora_layers(model).values() if layer.unmerged_base]
    for layer in merged:
        layer.unmerge()
    weights = {convert_to_base_name(name): tensor for name, tensor in model.state_dict().items()}
    has_own_head = not is_head_untied(model)
    for name, tensor in sorted(weights.items()):
        if ".adapters." not in name and not name.endswith(".tril") and (has_own_head or not name.startswith(HEAD)):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for layer in merged:
        layer.merge()
    return digest.hexdigest()


def save_adapter(
    model: nn.Module,
    folder: str | Path,
    name: str = "default",
    base_sha256: str | None = None,
    moved_ids: Sequence[int] = (),
) -> None:
    """Write one of a model's adapters.

    Args:
        model: a model with adapters.
        folder: where the two files go.
        name: the adapter's name.
        base_sha256: the base's fingerprint; computed from the model by default.
        moved_ids: tokens that have another id in the base. Where the adapter replaces only some rows of a table, their
            rows are saved too.

    Raises:
        ConfigError: the model has no adapter of that name.
        FileError: a file cannot be written.
    """
    if name not in list_adapters(model):
        raise ConfigError(f"there is no adapter {name!r}: known are {', '.join(list_adapters(model)) or 'none'}")
    updates = {
        convert_to_peft_name(model, path): layer.adapters[name]
        for path, layer in find_lora_layers(model).items()
        if name in layer.adapters
    }
    weights = {
        f"{path}.{PARTS[part]}": tensor.detach().cpu().contiguous()
        for path, update in updates.items()
        for part, tensor in update.named_parameters()
    }
    replaced, settings = convert_replacements(model, name, moved_ids)
    configs = {path.removeprefix(PREFIX): update.config for path, update in updates.items()}
    content = {**_describe_layers(configs, is_gpt=isinstance(model, GPT)), **settings}
    folder = Path(folder)
    create_folder(folder)
    metadata = {"format": "pt", "base_sha256": base_sha256 or compute_base_fingerprint(model)}
    write_atomic(folder / WEIGHTS, safetensors.torch.save(weights | replaced, metadata))
    write_atomic(folder / CONFIG, json.dumps(content, indent=2).encode() + b"\n")


def _describe_layers(configs: Mapping[str, LoRAConfig], is_gpt: bool) -> dict[str, Any]:
    """Return the content of adapter_config.json for these layers, by PEFT's names."""
    config = next(iter(configs.values()), LoRAConfig())
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if is_gpt else None,
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
        "fan_in_fan_out": is_gpt,  # GPT-2 stores its matrices transposed
        "bias": "none",
    }


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
        ConfigError: the name is taken, or an active adapter replaces the same weights.
    """
    if name in list_adapters(model):
        raise ConfigError(f"the model has an adapter named {name!r} already: choose another name")
    folder = Path(folder)
    require_inside(folder, [folder / CONFIG, folder / WEIGHTS, folder / TOKENS, folder / TOKENIZER])
    config = read_adapter_config(folder)
    weights, base = _read_weights(folder)
    if base not in (None, compute_base_fingerprint(model)):
        raise ExchangeError(
            f"{str(folder)!r} is an adapter for another base: use it with the base that it was made for"
        )
    if (folder / TOKENS).exists():  # then `load_new_tokens` reads the rows of tokens
        config = config._replace(tokens={})
        weights = {key: tensor for key, tensor in weights.items() if not key.endswith(TOKEN_ROWS)}
    unmerge(model)
    low_rank = {key: tensor for key, tensor in weights.items() if key.endswith(tuple(PARTS.values()))}
    rest = {key: tensor for key, tensor in weights.items() if key not in low_rank}
    updates = _build_updates(model, config, low_rank, folder)
    replacements, unties_head = read_replacements(model, config, rest, folder)
    for both in (path for path in updates if f"{path}.weight" in replacements):
        raise ExchangeError(f"{str(folder)!r} is damaged: {both} is replaced, and has a low-rank update too")
    require_compatible_adapter(model, updates, replacements)
    if unties_head and isinstance(model, GPT):
        untie_head(model)
    add_adapter(model, updates, name, replacements)
    return list(updates)


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
        raise ExchangeError(f"with {', '.join(adapters)} the weights are not finite numbers: lower the scale")
    config = run.config.override(tied_head=run.model.config.tied_head)  # an adapter may have untied the head
    run = dataclasses.replace(run, config=config)
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


def _build_updates(
    model: nn.Module, settings: AdapterConfig, weights: Mapping[str, Tensor], folder: Path
) -> dict[str, LowRankUpdate]:
    """Return an update for each layer that has weights. Raise ExchangeError if the weights do not fit the model."""
    layers = find_linear_layers(model)
    peft_names = {path: convert_to_peft_name(model, path) for path in layers}
    stray = weights.keys() - {f"{name}.{part}" for name in peft_names.values() for part in PARTS.values()}
    if stray:
        raise ExchangeError(f"{str(folder)!r} does not fit this model: there is no layer for its {min(stray)}")
    updates: dict[str, LowRankUpdate] = {}
    for path, name in peft_names.items():
        if not any(f"{name}.{part}" in weights for part in PARTS.values()):
            continue
        name_of_a = f"{name}.{PARTS['A']}"
        if name_of_a not in weights:
            raise ExchangeError(f"{str(folder)!r} is not complete: {name_of_a} is missing")
        found, config = weights[name_of_a], settings.get_layer_config(name.removeprefix(PREFIX))
        if found.dim() != 2 or found.shape[0] != config.rank:  # checked before memory is allocated for that rank
            wrong = f"{name_of_a} is of shape {list(found.shape)}, and the rank is {config.rank}"
            raise ExchangeError(f"{str(folder)!r} does not fit this model: {wrong}")
        updates[path] = LowRankUpdate(layers[path], config)
        for part, parameter in updates[path].named_parameters():
            key = f"{name}.{PARTS[part]}"
            if key not in weights:
                raise ExchangeError(f"{str(folder)!r} is not complete: {key} is missing")
            if weights[key].shape != parameter.shape:
                wrong = f"{key} is of shape {list(weights[key].shape)}, not {list(parameter.shape)}"
                raise ExchangeError(f"{str(folder)!r} does not fit this model: {wrong}")
            parameter.data.copy_(weights[key])
    return updates


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read an adapter's tensors and the fingerprint of its base, which PEFT does not write."""
    path = folder / WEIGHTS
    if not path.is_file():
        is_pickled = (folder / PICKLE).exists()
        why = f"its {PICKLE} is a pickle, which could run anything" if is_pickled else f"it has no {WEIGHTS}"
        raise ExchangeError(f"{str(folder)!r} cannot be read: {why}; save it as safetensors")
    weights, metadata = read_tensors(path)
    return weights, metadata.get("base_sha256")

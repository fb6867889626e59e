"""The LoRA adapters of a model: add them, switch and blend them, merge and remove them.

`lora_layer.py` explains LoRA. An adapter has one name, and a low-rank update for each of its layers. It can also
replace weights, see replaced_weights.py.
"""

import copy
import math
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize

from minigpt.errors import ConfigError, suggest_name
from minigpt.finetuning.lora_layer import LoRAConfig, LoRALinear, LowRankUpdate, copy_with_weight
from minigpt.finetuning.replaced_weights import (
    ReplacedWeight,
    Replacement,
    copy_with_replaced_weights,
    find_replaced_weights,
    replace_weights,
    require_one_replacement,
)
from minigpt.finetuning.target_layers import select_layers
from minigpt.model.quantization import Linear4bit, Linear8bit


def apply_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    *,
    name: str = "default",
    rslora: bool = False,
    dora: bool = False,
) -> list[str]:
    """Add a new active adapter to layers of a model, in place, and freeze everything else.

    A second adapter with another name goes beside the first. Merged adapters are unmerged.

    Args:
        model: any model with linear layers.
        rank: rank of each update.
        alpha: the update is multiplied by alpha / rank.
        dropout: share of the update's inputs that is dropped in training.
        targets: paths of layers or the ends of paths, such as "qkv" or "ffwd.up"; None for every layer of the blocks.
        name: the adapter's name.
        rslora: divide alpha by the square root of the rank instead.
        dora: learn the magnitude of each row too.

    Returns:
        The paths of the layers.

    Raises:
        ConfigError: a target matches no layer, the name is taken, or the rank is larger than a matrix.
    """
    config = LoRAConfig(rank, alpha, dropout, rslora, dora)
    unmerge(model)
    layers = select_layers(model, targets)
    if name in list_adapters(model):
        raise ConfigError(f"the model has an adapter named {name!r} already: choose another name")
    if not name or "." in name or hasattr(nn.ModuleDict, name) or hasattr(nn.ModuleDict(), name):
        raise ConfigError(f"an adapter cannot be named {name!r}: choose another name, without a dot")
    for path, layer in layers.items():
        smaller = min(layer.in_features, layer.out_features)
        if rank > smaller:
            raise ConfigError(f"rank must be at most {smaller}, the smaller side of {path}, not {rank}: lower it")
    add_adapter(model, {path: LowRankUpdate(layer, config) for path, layer in layers.items()}, name)
    return list(layers)


def add_adapter(
    model: nn.Module,
    updates: Mapping[str, LowRankUpdate],
    name: str,
    replacements: Mapping[str, Replacement] | None = None,
) -> None:
    """Add an adapter to a model, in place; it is active beside those that are active already.

    Args:
        model: the model; everything but its active adapters is frozen.
        updates: the adapter's low-rank updates by the paths of their layers.
        name: the adapter's name.
        replacements: weights that the adapter replaces, by name.
    """
    active = _get_active_adapters(model)
    model.requires_grad_(False)
    for path, update in updates.items():
        layer = model.get_submodule(path)
        if not isinstance(layer, LoRALinear):
            layer = LoRALinear(layer)  # type: ignore[arg-type]
            _replace_module(model, path, layer)
        layer.adapters[name] = update.train(model.training)
    replace_weights(model, replacements or {}, name)
    use_adapters(model, {**active, name: 1.0})


def require_compatible_adapter(model: nn.Module, updated: Collection[str], replacements: Collection[str]) -> None:
    """Raise ConfigError if a model's adapters and a new one change the same weights in different ways.

    Args:
        model: the model.
        updated: the paths of the layers that the new adapter updates.
        replacements: the names of the weights that the new adapter replaces.
    """
    replaced, layers = find_replaced_weights(model), find_lora_layers(model)
    for parameter in replacements:
        if parameter in replaced and replaced[parameter].scales:
            raise ConfigError(f"two of the adapters replace {parameter}: use one of them")
    both = {*layers, *updated} & {name.rpartition(".")[0] for name in [*replaced, *replacements]}
    if both:
        raise ConfigError(f"one adapter replaces {min(both)}, and another updates it: use one of them")


def find_lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the layers that have adapters, by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}


def list_adapters(model: nn.Module) -> list[str]:
    """Return the names of a model's adapters."""
    return list(dict.fromkeys(name for module in _find_adapted_modules(model) for name in module.adapters))


def _find_adapted_modules(model: nn.Module) -> list[LoRALinear | ReplacedWeight]:
    """Return the modules that hold a model's adapters."""
    return [*find_lora_layers(model).values(), *find_replaced_weights(model).values()]


def _get_active_adapters(model: nn.Module) -> dict[str, float]:
    """Return the active adapters: name to factor."""
    return {name: scale for module in _find_adapted_modules(model) for name, scale in module.scales.items()}


def use_adapters(model: nn.Module, scales: Mapping[str, float]) -> None:
    """Make these adapters, and no others, active. Merged adapters are unmerged.

    Args:
        model: a model with adapters.
        scales: name to factor: {"a": 1} switches to a, {"a": 0.7, "b": 0.3} blends two, {} is the base.

    Raises:
        ConfigError: there is no such adapter, a factor is not a number, or two of them replace the same weights.
    """
    known = list_adapters(model)
    for name, scale in scales.items():
        if name not in known:
            hint = suggest_name(name, known) or ": known are " + (", ".join(known) or "none")
            raise ConfigError(f"there is no adapter {name!r}{hint}")
        if not math.isfinite(scale):
            raise ConfigError(f"the scale of adapter {name!r} must be a number, not {scale}")
    require_one_replacement(model, scales)
    unmerge(model)
    for module in _find_adapted_modules(model):
        module.scales = {name: scale for name, scale in scales.items() if name in module.adapters}
        for name, adapter in module.adapters.items():
            adapter.requires_grad_(name in scales)


def merge(model: nn.Module) -> None:
    """Add the active adapters to the matrices of their layers, so that the model is as fast as without them."""
    for layer in find_lora_layers(model).values():
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`: every matrix is the frozen one again, bit for bit."""
    for layer in find_lora_layers(model).values():
        layer.unmerge()


def merge_and_unload(model: nn.Module) -> None:
    """Merge the active adapters for good and remove all of them, in place: an ordinary model remains.

    Quantized layers become full-precision ones, and replaced weights take the place of the base's.
    """
    merge(model)
    for path, layer in [*model.named_modules()]:
        if isinstance(layer, LoRALinear):
            _replace_module(model, path, layer.base)
        elif isinstance(layer, Linear4bit | Linear8bit) and not path.endswith(".base"):
            _replace_module(model, path, copy_with_weight(layer, layer.weight))
        elif parametrize.is_parametrized(layer):
            _replace_module(model, path, copy_with_replaced_weights(layer))
    model.requires_grad_(True)


def compute_merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that `merge_and_unload` would leave; the model stays as it is."""
    merged = copy.deepcopy(model)
    merge_and_unload(merged)
    return merged.state_dict()


def count_trained_parameters(model: nn.Module) -> int:
    """Return how many parameters train."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)

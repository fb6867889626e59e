"""Find the linear layers of a model, and select those that get an adapter."""

from collections.abc import Sequence

from torch import nn

from minigpt.errors import ConfigError, suggest_name
from minigpt.model.quantization import Linear4bit, Linear8bit

LinearLayer = nn.Linear | Linear4bit | Linear8bit

OUTSIDE_BLOCKS = ("lm_head",)  # layers whose rows are tokens


def find_linear_layers(model: nn.Module) -> dict[str, LinearLayer]:
    """Return every linear layer of a model by its path.

    A layer that has adapters is the `base` of a LoRALinear; its path is the one that it had before.
    """
    return {
        path.removesuffix(".base"): module for path, module in model.named_modules() if isinstance(module, LinearLayer)
    }


def select_layers(model: nn.Module, targets: Sequence[str] | None) -> dict[str, LinearLayer]:
    """Return the linear layers that the targets name, by path.

    Args:
        model: any model.
        targets: paths of layers or the ends of paths, such as "qkv" or "ffwd.up"; None for every layer of the blocks.

    Raises:
        ConfigError: a target names no layer; the message lists the names that exist.
    """
    layers = find_linear_layers(model)
    if targets is None:
        inside = {path: layer for path, layer in layers.items() if path.startswith("blocks.")}
        if not inside:
            raise ConfigError("the model has no blocks, and so no layers for an adapter: take a transformer")
        return inside
    for target in targets:
        if not any(is_named(path, target) for path in layers):
            known = list(dict.fromkeys(_get_short_name(path) for path in layers))
            hint = suggest_name(target, known) or f": choose from {', '.join(known)}"
            raise ConfigError(f"no layer is named {target!r}{hint}")
    if not targets:
        raise ConfigError("targets is empty: name layers, or leave it out")
    return {path: layer for path, layer in layers.items() if any(is_named(path, target) for target in targets)}


def require_targets(model: nn.Module, targets: Sequence[str] | None, has_new_tokens: bool) -> None:
    """Raise ConfigError for targets that match no layer, and for the last layer where its rows grow."""
    layers = select_layers(model, targets)
    if has_new_tokens and not layers.keys().isdisjoint(OUTSIDE_BLOCKS):
        raise ConfigError("lm_head gets rows for new tokens, and so no adapter: leave it out of the targets")


def is_named(path: str, target: str) -> bool:
    """Return True where the target is the path of a layer or its end."""
    return path == target or path.endswith("." + target)


def _get_short_name(path: str) -> str:
    """Return what a layer is called in each block: the part of its path after the last number."""
    words = path.split(".")
    numbers = [n for n, word in enumerate(words[:-1]) if word.isdigit()]
    return ".".join(words[numbers[-1] + 1 :]) if numbers else path

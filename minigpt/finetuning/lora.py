"""LoRA: fine-tune a model through two small matrices beside each large one (Hu et al. 2021).

The layer's matrix W (O, I) stays frozen. Beside it trains an update of low rank, B @ A, with A (r, I) and B (O, r),
multiplied by alpha / r. B starts at zero, so the model computes the same as before until the first step. A layer of 64
by 256 has 16,384 weights; an adapter of rank 4 trains 1,280, and only those have to be shared.

Two variants are a line each. rsLoRA (Kalajdzievski 2023) multiplies by alpha / sqrt(r), so that a large rank learns as
fast as a small one. DoRA (Liu et al. 2024) also learns the norm of each row of W, its magnitude.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from minigpt.errors import ConfigError, suggest_name
from minigpt.finetuning.target_layers import LinearLayer, select_layers
from minigpt.model.quantization import Linear4bit, Linear8bit


@dataclass(frozen=True)
class LoRAConfig:
    """The size and the scaling of an adapter.

    Attributes:
        rank: r, the rank of each update.
        alpha: the update is multiplied by alpha / rank.
        dropout: share of the update's inputs that is dropped in training.
        rslora: divide alpha by the square root of the rank instead.
        dora: learn the magnitude of each row too.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigError(f"rank must be a whole number at least 1, not {self.rank!r}")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha must be a number above 0, not {self.alpha!r}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")

    @property
    def scaling(self) -> float:
        """The factor of B @ A."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class Adapter(nn.Module):
    """The low-rank update of one layer."""

    def __init__(self, layer: LinearLayer, config: LoRAConfig) -> None:
        super().__init__()
        O, I = layer.out_features, layer.in_features  # noqa: E741
        self.config = config
        weight = layer.weight.detach()
        self.A = nn.Parameter(weight.new_empty(config.rank, I))
        self.B = nn.Parameter(weight.new_zeros(O, config.rank))
        self.magnitude = nn.Parameter(weight.norm(dim=1)) if config.dora else None  # (O,)
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # the initialization of nn.Linear

    def forward(self, x: Tensor, layer: LinearLayer) -> Tensor:
        """Return what the adapter adds to the output of its layer: (..., I) to (..., O)."""
        x = F.dropout(x, self.config.dropout, self.training)
        update = (x @ self.A.T) @ self.B.T * self.config.scaling  # (..., I) -> (..., r) -> (..., O)
        if self.magnitude is None:
            return update
        weight = layer.weight
        norm_scale = self._compute_norm_scale(weight)
        return (norm_scale - 1) * F.linear(x, weight) + norm_scale * update

    def compute_weight_update(self, weight: Tensor) -> Tensor:
        """Return what the adapter adds to the layer's matrix: (O, I)."""
        update = self.B @ self.A * self.config.scaling
        if self.magnitude is None:
            return update
        norm_scale = self._compute_norm_scale(weight)[:, None]
        return (norm_scale - 1) * weight + norm_scale * update

    def _compute_norm_scale(self, weight: Tensor) -> Tensor:
        """Return DoRA's factor for each row, (O,). As in the paper, the present norm counts as a constant."""
        assert self.magnitude is not None
        return self.magnitude / (weight + self.B @ self.A * self.config.scaling).norm(dim=1).detach()


class LoRALinear(nn.Module):
    """A frozen linear layer and its adapters; the active ones are added to its output.

    Attributes:
        base: the frozen layer.
        adapters: the adapters by name.
        scales: the active adapters: name to factor.
        unmerged_base: the frozen layer while `base` is a layer with the adapters merged into it, else None.
    """

    adapters: dict[str, Adapter]

    def __init__(self, base: LinearLayer) -> None:
        super().__init__()
        self.base: LinearLayer = base.requires_grad_(False)
        self.adapters = nn.ModuleDict()  # type: ignore[assignment]
        self.scales: dict[str, float] = {}
        self.unmerged_base: tuple[LinearLayer] | None = None  # in a tuple, so that it is no submodule

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        result = self.base(x)
        if self.unmerged_base is None:
            for name, scale in self.scales.items():
                result = result + scale * self.adapters[name](x, self.base)
        return result

    def merge(self) -> None:
        """Replace `base` by a layer whose matrix includes the active adapters."""
        if self.unmerged_base is None:
            self.unmerged_base = (self.base,)
            weight = self.base.weight.detach()
            updates = [
                scale * self.adapters[name].compute_weight_update(weight).detach()
                for name, scale in self.scales.items()
            ]
            self.base = _copy_with_weight(self.base, sum(updates, weight))

    def unmerge(self) -> None:
        """Put the frozen layer back, bit for bit."""
        if self.unmerged_base is not None:
            self.base = self.unmerged_base[0].to(self.base.weight)  # the model may have been moved since
            self.unmerged_base = None


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
    add_adapter(model, {path: Adapter(layer, config) for path, layer in layers.items()}, name)
    return list(layers)


def add_adapter(model: nn.Module, adapters: Mapping[str, Adapter], name: str) -> None:
    """Give layers of a model an adapter each, in place; it is active beside those that are active already.

    Args:
        model: the model; everything but its active adapters is frozen.
        adapters: the adapters by the paths of their layers.
        name: one name for all of them.
    """
    active = _get_active_adapters(model)
    model.requires_grad_(False)
    for path, adapter in adapters.items():
        layer = model.get_submodule(path)
        if not isinstance(layer, LoRALinear):
            layer = LoRALinear(layer)  # type: ignore[arg-type]
            _replace_module(model, path, layer)
        layer.adapters[name] = adapter.train(model.training)
    use_adapters(model, {**active, name: 1.0})


def find_lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the layers that have adapters, by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}


def list_adapters(model: nn.Module) -> list[str]:
    """Return the names of a model's adapters."""
    return list(dict.fromkeys(name for layer in find_lora_layers(model).values() for name in layer.adapters))


def _get_active_adapters(model: nn.Module) -> dict[str, float]:
    """Return the active adapters: name to factor."""
    return {name: scale for layer in find_lora_layers(model).values() for name, scale in layer.scales.items()}


def use_adapters(model: nn.Module, scales: Mapping[str, float]) -> None:
    """Make these adapters, and no others, active. Merged adapters are unmerged.

    Args:
        model: a model with adapters.
        scales: name to factor: {"a": 1} switches to a, {"a": 0.7, "b": 0.3} blends two, {} is the base.

    Raises:
        ConfigError: there is no such adapter, or a factor is not a number.
    """
    known = list_adapters(model)
    for name, scale in scales.items():
        if name not in known:
            hint = suggest_name(name, known) or ": known are " + (", ".join(known) or "none")
            raise ConfigError(f"there is no adapter {name!r}{hint}")
        if not math.isfinite(scale):
            raise ConfigError(f"the scale of adapter {name!r} must be a number, not {scale}")
    unmerge(model)
    for layer in find_lora_layers(model).values():
        layer.scales = {name: scale for name, scale in scales.items() if name in layer.adapters}
        for name, adapter in layer.adapters.items():
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

    Quantized layers become full-precision ones, and the trained rows of new tokens become part of their tables.
    """
    merge(model)
    for path, layer in [*model.named_modules()]:
        if isinstance(layer, LoRALinear):
            _replace_module(model, path, layer.base)
        elif isinstance(layer, Linear4bit | Linear8bit) and not path.endswith(".base"):
            _replace_module(model, path, _copy_with_weight(layer, layer.weight))
        elif parametrize.is_parametrized(layer):  # has rows of new tokens, see vocabulary_resize.py
            _replace_module(model, path, _copy_without_parametrization(layer))
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


def _copy_with_weight(layer: LinearLayer, weight: Tensor) -> nn.Linear:
    """Return a full-precision linear layer with another matrix and the same bias."""
    with torch.device("meta"):
        kind = type(layer) if isinstance(layer, nn.Linear) else nn.Linear
        new = kind(layer.in_features, layer.out_features, bias=False)
    new.weight = nn.Parameter(weight.clone() if weight is layer.weight else weight, requires_grad=False)
    new.bias = layer.bias
    return new


def _copy_without_parametrization(layer: nn.Module) -> nn.Module:
    """Return an ordinary embedding or linear layer that has the present values of a parametrized one."""
    rows, columns = layer.get_parameter("parametrizations.weight.original").shape
    bias = getattr(layer, "bias", None)
    with torch.device("meta"):
        is_embedding = isinstance(layer, nn.Embedding)
        new = nn.Embedding(rows, columns) if is_embedding else nn.Linear(columns, rows, bias is not None)
    new.weight = nn.Parameter(getattr(layer, "weight").detach().clone())  # noqa: B009
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone())
    return new

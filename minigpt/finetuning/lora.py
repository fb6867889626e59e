"""LoRA: a trained model learns something more through two thin matrices beside each large one (Hu et al. 2021).

A layer that multiplies by W, (O, I), is left as it is; what it learns is an update of low rank, B @ A, with A (r, I)
and B (O, r), scaled by alpha / r. B starts at zero, so that at first nothing is changed. Beside the 16,384 numbers of a
layer 64 by 256 rank 4 trains 1,280, and those are all that has to be handed on.

Two ways to do it better, each a line below. rsLoRA (Kalajdzievski 2023) scales by alpha / sqrt(r), so that a large rank
learns as fast as a small one. DoRA (Liu et al. 2024) learns each row's length on its own, beside its direction.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from minigpt.errors import ConfigError, suggest_name
from minigpt.kernels.onednn_linear import Linear
from minigpt.model import count_parameters
from minigpt.model.int8 import Linear8bit
from minigpt.model.quantization import Linear4bit

Layer = nn.Linear | Linear4bit | Linear8bit

OUTSIDE_BLOCKS = ("lm_head",)  # whose rows are tokens


@dataclass(frozen=True)
class Shape:
    """How large an adapter is and how much it counts.

    Attributes:
        rank: r, how many directions each update has.
        alpha: what the update is scaled by, over the rank.
        dropout: the share of the update's inputs dropped in training.
        rslora: over the rank's square root instead.
        dora: each row's length learned too.
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
    def scale(self) -> float:
        """What B @ A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class Adapter(nn.Module):
    """The update of one layer."""

    def __init__(self, layer: Layer, shape: Shape) -> None:
        super().__init__()
        O, I = layer.out_features, layer.in_features  # noqa: E741
        self.shape = shape
        weight = layer.weight.detach()
        self.A = nn.Parameter(weight.new_empty(shape.rank, I))
        self.B = nn.Parameter(weight.new_zeros(O, shape.rank))
        self.lengths = nn.Parameter(weight.norm(dim=1)) if shape.dora else None  # (O,)
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear's own weights begin

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        """What is added to the layer's result: (..., I) to (..., O)."""
        x = F.dropout(x, self.shape.dropout, self.training)
        update = (x @ self.A.T) @ self.B.T * self.shape.scale  # (..., I) -> (..., r) -> (..., O)
        if self.lengths is None:
            return update
        weight = layer.weight
        stretch = self._stretch(weight)
        return (stretch - 1) * F.linear(x, weight) + stretch * update

    def of_weight(self, weight: Tensor) -> Tensor:
        """The same as an update of the matrix (O, I)."""
        update = self.B @ self.A * self.shape.scale
        if self.lengths is None:
            return update
        stretch = self._stretch(weight)[:, None]
        return (stretch - 1) * weight + stretch * update

    def _stretch(self, weight: Tensor) -> Tensor:
        """By how much DoRA makes each row longer, (O,); the length that it has now counts as a constant."""
        assert self.lengths is not None
        return self.lengths / (weight + self.B @ self.A * self.shape.scale).norm(dim=1).detach()


class LoRALinear(nn.Module):
    """A linear layer and its adapters, of which those in use, each by its share, are added up.

    Attributes:
        base: the layer, frozen.
        adapters: by name.
        shares: how much each adapter in use counts.
        kept: the layer itself while one with the adapters merged into it is in its place.
    """

    adapters: dict[str, Adapter]

    def __init__(self, base: Layer) -> None:
        super().__init__()
        self.base: Layer = base.requires_grad_(False)
        self.adapters = nn.ModuleDict()  # type: ignore[assignment]
        self.shares: dict[str, float] = {}
        self.kept: tuple[Layer] | None = None  # in a tuple, so that PyTorch takes it for no part of this module

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        result = self.base(x)
        if self.kept is None:
            for name, share in self.shares.items():
                result = result + share * self.adapters[name](x, self.base)
        return result

    def merge(self) -> None:
        """Put a layer in the place of this one's whose matrix has what is in use added to it."""
        if self.kept is None:
            self.kept = (self.base,)
            weight = self.base.weight.detach()
            updates = [share * self.adapters[name].of_weight(weight).detach() for name, share in self.shares.items()]
            self.base = with_weight(self.base, sum(updates, weight))

    def unmerge(self) -> None:
        """Put the layer back as it was, bit for bit."""
        if self.kept is not None:
            self.base = self.kept[0].to(self.base.weight)  # where the model is by now
            self.kept = None


def with_weight(layer: Layer, weight: Tensor) -> nn.Linear:
    """A linear layer of that kind, or an ordinary one if it held its matrix in few bits, with another matrix."""
    with torch.device("meta"):
        kind = type(layer) if isinstance(layer, nn.Linear) else Linear
        new = kind(layer.in_features, layer.out_features, bias=False)
    new.weight = nn.Parameter(weight.clone() if weight is layer.weight else weight, requires_grad=False)
    new.bias = layer.bias
    return new


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
    """Put a new adapter, in use from now on, beside layers of a model, in place; the names of those layers.

    From then on only adapters train. `targets` are names of layers, or their last parts, such as "qkv" or "ffwd.up";
    without them all linear layers of the blocks. A second adapter, of another `name`, goes beside the first. Raises
    ConfigError for targets that match no layer, a name that is taken, and a rank that is larger than a matrix.
    """
    shape = Shape(rank, alpha, dropout, rslora, dora)
    unmerge(model)
    chosen = chosen_layers(model, targets)
    if name in adapter_names(model):
        raise ConfigError(f"the model has an adapter named {name!r} already: choose another name")
    if not name or "." in name or hasattr(nn.ModuleDict, name) or hasattr(nn.ModuleDict(), name):
        raise ConfigError(f"an adapter cannot be named {name!r}: choose another name, without a dot")
    for path, layer in chosen.items():
        smaller = min(layer.in_features, layer.out_features)
        if rank > smaller:
            raise ConfigError(f"rank must be at most {smaller}, the smaller side of {path}, not {rank}: lower it")
    model.requires_grad_(False)
    for path, layer in chosen.items():
        put_beside(model, path, Adapter(layer, shape), name)
    use_adapters(model, {**shares_in_use(model), name: 1.0})
    return list(chosen)


def put_beside(model: nn.Module, path: str, adapter: Adapter, name: str) -> None:
    """Give the layer at that path an adapter, in LoRALinear if it isn't yet."""
    parent_path, _, child = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    layer = getattr(parent, child)
    if not isinstance(layer, LoRALinear):
        layer = LoRALinear(layer)
        setattr(parent, child, layer)
    layer.adapters[name] = adapter.train(model.training)


def linear_layers(model: nn.Module) -> dict[str, Layer]:
    """Every linear layer by its path, those with adapters by the path that they had before."""
    layers: dict[str, Layer] = {}
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear):
            layers[path] = module.base
        elif isinstance(module, Layer) and not path.endswith(".base"):
            layers[path] = module
    return layers


def chosen_layers(model: nn.Module, targets: Sequence[str] | None) -> dict[str, Layer]:
    """The linear layers that the targets name; ConfigError, with what could be named, for one that names none."""
    layers = linear_layers(model)
    if targets is None:
        inside = {path: layer for path, layer in layers.items() if path.startswith("blocks.")}
        if not inside:
            raise ConfigError("the model has no blocks, and so no layers for an adapter: take a transformer")
        return inside
    for target in targets:
        if not any(matches(path, target) for path in layers):
            known = list(dict.fromkeys(short(path) for path in layers))
            hint = suggest_name(target, known) or f": choose from {', '.join(known)}"
            raise ConfigError(f"no layer is named {target!r}{hint}")
    if not targets:
        raise ConfigError("targets is empty: name layers, or leave it out")
    return {path: layer for path, layer in layers.items() if any(matches(path, target) for target in targets)}


def matches(path: str, target: str) -> bool:
    """Whether the target is the path of a layer, or its end."""
    return path == target or path.endswith("." + target)


def short(path: str) -> str:
    """What a layer is called in each block: the part of its path after the numbers."""
    words = path.split(".")
    numbers = [n for n, word in enumerate(words[:-1]) if word.isdigit()]
    return ".".join(words[numbers[-1] + 1 :]) if numbers else path


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The layers with adapters, by their paths."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_names(model: nn.Module) -> list[str]:
    """The names of a model's adapters."""
    return list(dict.fromkeys(name for layer in lora_layers(model).values() for name in layer.adapters))


def shares_in_use(model: nn.Module) -> dict[str, float]:
    """The adapters in use, and how much each counts."""
    return {name: share for layer in lora_layers(model).values() for name, share in layer.shares.items()}


def use_adapters(model: nn.Module, shares: Mapping[str, float]) -> None:
    """Use these adapters, each by its share: {"a": 1} switches to a, {"a": 0.7, "b": 0.3} blends, {} is the base.

    Raises ConfigError for an adapter that isn't there or a share that is no number; unmerges first.
    """
    known = adapter_names(model)
    for name, share in shares.items():
        if name not in known:
            hint = suggest_name(name, known) or ": known are " + (", ".join(known) or "none")
            raise ConfigError(f"there is no adapter {name!r}{hint}")
        if not math.isfinite(share):
            raise ConfigError(f"the share of adapter {name!r} must be a number, not {share}")
    unmerge(model)
    for layer in lora_layers(model).values():
        layer.shares = {name: share for name, share in shares.items() if name in layer.adapters}
        for name, adapter in layer.adapters.items():
            adapter.requires_grad_(name in shares)


def merge(model: nn.Module) -> None:
    """Add the adapters in use to the matrices beside them: the same function, as fast as without them."""
    for layer in lora_layers(model).values():
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`: every matrix is the one that was there, bit for bit."""
    for layer in lora_layers(model).values():
        layer.unmerge()


def fold(model: nn.Module) -> None:
    """Merge, for good, and take the adapters off: an ordinary model again."""
    merge(model)
    for path, layer in [*model.named_modules()]:
        parent_path, _, child = path.rpartition(".")
        if isinstance(layer, LoRALinear):
            setattr(model.get_submodule(parent_path), child, layer.base)
        elif isinstance(layer, Linear4bit | Linear8bit) and not path.endswith(".base"):
            setattr(model.get_submodule(parent_path), child, with_weight(layer, layer.weight))
        elif parametrize.is_parametrized(layer):  # rows of new tokens, tokens.py
            setattr(model.get_submodule(parent_path), child, with_own_tables(layer))
    model.requires_grad_(True)


def with_own_tables(layer: nn.Module) -> nn.Module:
    """An embedding or linear layer with what its parametrized tensors are now as parameters of its own."""
    rows, columns = layer.get_parameter("parametrizations.weight.original").shape
    bias = getattr(layer, "bias", None)
    with torch.device("meta"):
        kind = Linear if isinstance(layer, Linear) else nn.Linear
        new = nn.Embedding(rows, columns) if isinstance(layer, nn.Embedding) else kind(columns, rows, bias is not None)
    new.weight = nn.Parameter(getattr(layer, "weight").detach().clone())  # noqa: B009
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone())
    return new


def plain_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the ordinary model that `fold` would make of it, which stays as it is."""
    ordinary = copy.deepcopy(model)
    fold(ordinary)
    return ordinary.state_dict()


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within the block the model is the base."""
    shares = shares_in_use(model)
    use_adapters(model, {})
    try:
        yield
    finally:
        use_adapters(model, shares)


def trained_share(model: nn.Module) -> tuple[int, int]:
    """How many numbers train, and how many there are in all."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad), count_parameters(model)

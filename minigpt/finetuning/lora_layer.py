"""LoRA: fine-tune a model through two small matrices beside each large one (Hu et al. 2021).

The layer's matrix W (O, I) stays frozen. Beside it trains an update of low rank, B @ A, with A (r, I) and B (O, r),
multiplied by alpha / r. B starts at zero, so the model computes the same as before until the first step. A layer of 64
by 256 has 16,384 weights; an update of rank 4 trains 1,280, and only those have to be shared.

Two variants are a line each. rsLoRA (Kalajdzievski 2023) multiplies by alpha / sqrt(r), so that a large rank learns as
fast as a small one. DoRA (Liu et al. 2024) also learns the norm of each row of W, its magnitude.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.errors import ConfigError
from minigpt.finetuning.target_layers import LinearLayer


@dataclass(frozen=True)
class LoRAConfig:
    """The size and the scaling of low-rank updates.

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


class LowRankUpdate(nn.Module):
    """The low-rank update of one layer: B @ A, and with DoRA the magnitudes. An adapter has one for each layer."""

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
        """Return what the update adds to the output of its layer: (..., I) to (..., O)."""
        x = F.dropout(x, self.config.dropout, self.training)
        update = (x @ self.A.T) @ self.B.T * self.config.scaling  # (..., I) -> (..., r) -> (..., O)
        if self.magnitude is None:
            return update
        weight = layer.weight
        norm_scale = self._compute_norm_scale(weight)
        return (norm_scale - 1) * F.linear(x, weight) + norm_scale * update

    def add_to(self, total: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:
        """Return `total` (O, I) plus `scale` times what this update adds to the layer's own matrix, `weight` (O, I)."""
        if self.magnitude is None:
            return torch.addmm(total, self.B, self.A, alpha=scale * self.config.scaling)  # four operations in one
        norm_scale = self._compute_norm_scale(weight)[:, None]
        update = self.B @ self.A * self.config.scaling
        return total + scale * ((norm_scale - 1) * weight + norm_scale * update)

    def _compute_norm_scale(self, weight: Tensor) -> Tensor:
        """Return DoRA's factor for each row, (O,). As in the paper, the present norm counts as a constant."""
        assert self.magnitude is not None
        return self.magnitude / (weight + self.B @ self.A * self.config.scaling).norm(dim=1).detach()


class LoRALinear(nn.Module):
    """A frozen linear layer and its low-rank updates; those of active adapters are added to its output.

    Attributes:
        base: the frozen layer.
        adapters: the layer's update by the name of the adapter.
        scales: the active adapters: name to factor.
        unmerged_base: the frozen layer while `base` is a layer with the updates merged into it, else None.
    """

    adapters: dict[str, LowRankUpdate]

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

    def compute_effective_weight(self) -> Tensor | None:
        """Return the matrix with the active updates added, (O, I), or None where an update drops some of its inputs.

        A product with it is the layer's result, and autograd takes its gradient on to the updates.
        """
        if self.unmerged_base:
            return self.base.weight
        if self.training and any(self.adapters[name].config.dropout for name in self.scales):
            return None
        return self._add_updates()

    def _add_updates(self) -> Tensor:
        """Return the frozen matrix with the updates of the active adapters added: (O, I)."""
        weight = total = self.base.weight
        for name, scale in self.scales.items():
            total = self.adapters[name].add_to(total, weight, scale)
        return total

    def merge(self) -> None:
        """Replace `base` by a layer whose matrix includes the updates of the active adapters."""
        if self.unmerged_base is None:
            self.unmerged_base = (self.base,)
            self.base = copy_with_weight(self.base, self._add_updates().detach())

    def unmerge(self) -> None:
        """Put the frozen layer back, bit for bit."""
        if self.unmerged_base is not None:
            self.base = self.unmerged_base[0].to(self.base.weight)  # the model may have been moved since
            self.unmerged_base = None


def copy_with_weight(layer: LinearLayer, weight: Tensor) -> nn.Linear:
    """Return a full-precision linear layer with another matrix and the same bias."""
    with torch.device("meta"):
        kind = type(layer) if isinstance(layer, nn.Linear) else nn.Linear
        new = kind(layer.in_features, layer.out_features, bias=False)
    new.weight = nn.Parameter(weight.clone() if weight is layer.weight else weight, requires_grad=False)
    new.bias = layer.bias
    return new

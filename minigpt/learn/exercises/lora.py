"""Exercise 20: LoRA."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import load_weights, randn, weigh
from minigpt.learn.outcomes import require

TEXT = """
To fine-tune a large model, LoRA leaves its matrices as they are and trains two small matrices beside each of them:

    x (..., I) ──┬── frozen layer W (O, I) ────────────────────(+)── (..., O)
                 └── A (r, I) ── B (O, r) ── times alpha / r ──┘

The rank r is small: with I = O = 1000 and r = 8, W has a million numbers, and A and B together 16,000.

B starts at zero, so at first the layer computes the same as before. A starts random: if both were zero, neither would
get a gradient. The factor alpha / r keeps the size of the update the same when the rank is changed.

Write `__init__` and `forward`. The names: self.base (the given layer, with requires_grad off), self.scaling (alpha /
rank), and the nn.Parameters self.A (rank, in_features) and self.B (out_features, rank).
nn.init.kaiming_uniform_(self.A, a=math.sqrt(5)) is the usual start of A.
"""

EXPERIMENT = """
torch.manual_seed(0)
base = nn.Linear(64, 64)
layer = LoRALinear(base, rank=4, alpha=8)
x = torch.randn(100, 64)
target = base(x).detach() + x[:, :4].repeat(1, 16)  # a new task: add one of the first four numbers
optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=0.01)
print("trained numbers:", sum(p.numel() for p in layer.parameters() if p.requires_grad), "of 64 * 64 + 64")
for step in range(201):
    loss = (layer(x) - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step:>3}: error {loss.item():.3f}")
"""


class LoRALinear(nn.Module):
    """A frozen linear layer, and a trained update of low rank beside it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        """Freeze the layer, and make the two small matrices.

        Args:
            base: the layer to fine-tune, from I numbers to O.
            rank: r, the rank of the update.
            alpha: the update is multiplied by alpha / rank.
        """
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scaling = alpha / rank
        self.A = nn.Parameter(torch.empty(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output and the update's, added: (..., I) -> (..., O)."""
        return self.base(x) + (x @ self.A.T) @ self.B.T * self.scaling


def _make_layer(my: Any, inputs: int, outputs: int, rank: int, alpha: float) -> Any:
    """Return the learner's layer around a layer with fixed weights."""
    base = nn.Linear(inputs, outputs)
    with torch.no_grad():
        base.weight.copy_(randn(outputs, inputs, seed=5))
        base.bias.copy_(randn(outputs, seed=6))
    return my.LoRALinear(base, rank, alpha)


def _start(my: Any, inputs: int, outputs: int, rank: int, alpha: float) -> dict[str, Any]:
    """Describe a new layer: its output, and what is trained."""
    layer = _make_layer(my, inputs, outputs, rank, alpha)
    for name in ("A", "B"):
        is_right = isinstance(getattr(layer, name, None), nn.Parameter)
        require(
            is_right, f"self.{name} must be an nn.Parameter: nn.Parameter(torch.zeros(...)), not a tensor or a layer."
        )
    trained = {name: p.requires_grad for name, p in layer.named_parameters()}
    A, B = layer.A, layer.B
    return {
        "which parameters are trained (requires_grad)": sorted(name for name in trained if trained[name]),
        "which parameters are frozen": sorted(name for name in trained if not trained[name]),
        "the shapes of A and B": [str(tuple(A.shape)), str(tuple(B.shape))],
        "the output at the start is that of the base layer": _is_unchanged(layer, randn(2, 3, inputs)),
        "A is not zero at the start": bool(A.any()),
        "the numbers of A differ at the start": A.unique().numel() == A.numel() or not A.any(),
        "B is zero at the start": not B.any(),
    }


def _is_unchanged(layer: Any, x: Tensor) -> bool:
    """Return True if the layer computes what its base computes."""
    return torch.allclose(layer(x), layer.base(x), atol=1e-6)


def _update(my: Any, inputs: int, outputs: int, rank: int, alpha: float) -> dict[str, Any]:
    """Give A and B values; return the output and the gradients."""
    layer = _make_layer(my, inputs, outputs, rank, alpha)
    require(
        torch.equal(layer.base.weight, randn(outputs, inputs, seed=5)),
        "self.base must be the given layer, with its weights: self.base = base.",
    )
    frozen = {name: p.detach().clone() for name, p in layer.named_parameters() if name.startswith("base.")}
    load_weights(layer, {**frozen, "A": randn(rank, inputs, seed=7), "B": randn(outputs, rank, seed=8)})
    output = layer(randn(2, 3, inputs))
    if output.requires_grad:
        weigh(output).backward()
    gradients = {f"the gradient of {name}": p.grad for name, p in layer.named_parameters()}
    return {"the output after training": output, **gradients}


class _WithoutScale(LoRALinear):
    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (x @ self.A.T) @ self.B.T


class _ScaledByAlpha(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.scaling = alpha


class _ScaledByRoot(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.scaling = alpha / math.sqrt(rank)


class _AllScaled(LoRALinear):
    def forward(self, x: Tensor) -> Tensor:
        return (self.base(x) + (x @ self.A.T) @ self.B.T) * self.scaling


class _RandomB(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        nn.init.kaiming_uniform_(self.B, a=math.sqrt(5))


class _ExchangedStart(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        nn.init.kaiming_uniform_(self.B, a=math.sqrt(5))
        nn.init.zeros_(self.A)


class _BothZero(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        nn.init.zeros_(self.A)


class _NotFrozen(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.base.requires_grad_(True)


class _WeightFrozenOnly(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        assert self.base.bias is not None
        self.base.bias.requires_grad_(True)


class _WithoutBase(LoRALinear):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.A.T) @ self.B.T * self.scaling


class _BaseOnly(LoRALinear):
    def forward(self, x: Tensor) -> Tensor:
        return self.base(x)


class _ScaledByInverse(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.scaling = rank / alpha


class _ScaledByWhole(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.scaling = alpha // rank


class _ConstantA(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        nn.init.ones_(self.A)


class _AllFrozen(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.requires_grad_(False)


class _OtherShapes(LoRALinear):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base, rank, alpha)
        self.A = nn.Parameter(torch.rand(base.in_features, rank))
        self.B = nn.Parameter(torch.zeros(rank, base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.A @ self.B * self.scaling


EXERCISE = Exercise(
    text=TEXT,
    imports="import math\n\nimport torch\nfrom torch import Tensor, nn",
    references=(LoRALinear,),
    cases=(
        Case("a new LoRALinear(nn.Linear(2, 2), rank 1, alpha 2)", lambda my: _start(my, 2, 2, 1, 2.0)),
        Case("a new LoRALinear(nn.Linear(3, 5), rank 2, alpha 6)", lambda my: _start(my, 3, 5, 2, 6.0)),
        Case("A and B with numbers in them, rank 1, alpha 2", lambda my: _update(my, 2, 2, 1, 2.0)),
        Case("A and B with numbers in them, rank 2, alpha 6", lambda my: _update(my, 3, 5, 2, 6.0)),
        Case("A and B with numbers in them, rank 2, alpha 3", lambda my: _update(my, 3, 5, 2, 3.0)),
    ),
    mistakes=tuple(
        Mistake(when, {"LoRALinear": variant})
        for when, variant in (
            ("the update is not multiplied by alpha / rank", _WithoutScale),
            ("the update is multiplied by alpha instead of alpha / rank", _ScaledByAlpha),
            ("the update is multiplied by alpha / sqrt(rank) instead of alpha / rank", _ScaledByRoot),
            ("the output of the frozen layer is multiplied by alpha / rank too", _AllScaled),
            ("B does not start at zero, so that the layer changes before any training", _RandomB),
            ("A and B are exchanged at the start: A is zero and B is random", _ExchangedStart),
            ("A starts at zero too, so that neither A nor B ever gets a gradient", _BothZero),
            ("the base layer is not frozen", _NotFrozen),
            ("the weight of the base layer is frozen, but its bias is not", _WeightFrozenOnly),
            ("the update is multiplied by rank / alpha instead of alpha / rank", _ScaledByInverse),
            ("alpha // rank drops the fraction: alpha / rank", _ScaledByWhole),
            ("A and B have each other's shape: A is (rank, in_features), B is (out_features, rank)", _OtherShapes),
            ("A is the same number everywhere at the start: all rows of A would learn the same", _ConstantA),
            ("A and B are frozen too: freeze the base layer only", _AllFrozen),
            ("the output of the base layer is missing", _WithoutBase),
            ("the update is not added", _BaseOnly),
        )
    ),
    hints=(
        "base.requires_grad_(False) freezes a layer, and returns it.",
        "torch.zeros(base.out_features, rank) for B, torch.empty(rank, base.in_features) for A. Wrap both in "
        "nn.Parameter.",
        "forward: self.base(x) + (x @ self.A.T) @ self.B.T * self.scaling.",
    ),
    experiment=EXPERIMENT,
)

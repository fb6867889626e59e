"""Muon: the optimizer that moves a matrix by the same length in all directions.

A layer's matrix turns one vector into another, so its update is best judged by its singular values. Those of the
gradient are very unequal: a few are large, and most are almost zero. AdamW looks at each number by itself and keeps
them unequal. Muon takes the running average of the gradients, M = U S V', and moves the matrix by U V', the nearest
matrix whose singular values are all one. So rare directions are learned as fast as frequent ones.

After Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the decay of Liu et al. 2025,
"Muon is Scalable for LLM Training". `torch.optim.Muon` is the same function, matrix by matrix and in bfloat16. Here all
matrices of one shape are one stack (n, r, c) and one batched product, in float32 unless training is in bfloat16. On
processors without bfloat16 that is several times as fast (docs/results.md).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

A, B, C = 3.4445, -4.7750, 2.0315  # coefficients of the polynomial below: five steps bring values of 0.01 to 1 near one
ITERATIONS = 5
MOMENTUM, FIRST_MOMENTUM, WARMUP = 0.95, 0.85, 100  # lower in the first steps, when gradients change fast
EPSILON = 1e-7


def orthogonalize(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return about U V' for each of the matrices U S V', (n, r, c): their singular values become 0.5 to 1.5.

    This is a Newton-Schulz iteration. An odd polynomial p of a matrix is p of its singular values, U p(S) V', and needs
    only products. p(s) = A s + B s^3 + C s^5, repeated, brings values between 0 and 1 near one. Its steep rise from 0
    matters more than ending at exactly one. Values below about 0.001 of the norm stay small.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    X = matrices.mT if tall else matrices  # the product of the shorter side is smaller
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)  # so the largest singular value is at most one
    for _ in range(iterations):
        S = X @ X.mT  # (n, r, r)
        X = torch.baddbmm(X, torch.baddbmm(S, S, S, beta=B, alpha=C), X, beta=A)  # A X + (B S + C S S) X
    return X.mT if tall else X


class Muon:
    """Muon over stacks (n, r, c), each of n matrices of r rows and c columns.

    Attributes:
        param_groups: one group: its "params", "lr", "weight_decay" and "momentum". A gradient scaler reads them too.
        state: for each stack its "momentum", the running average of its gradients.
    """

    def __init__(
        self, stacks: Sequence[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype | None = None
    ) -> None:
        """Prepare to update the stacks, with products in `dtype`, by default that of the stacks."""
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": MOMENTUM}
        self.param_groups: list[dict[str, Any]] = [{"params": [*stacks], **settings}]
        self.state = {stack: {"momentum": torch.zeros_like(stack)} for stack in stacks}
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix."""
        for group in self.param_groups:
            for stack in group["params"]:
                average = self.state[stack]["momentum"]
                average.lerp_(stack.grad, 1 - group["momentum"])
                ahead = stack.grad.lerp(average, group["momentum"])  # Nesterov: the average one step ahead
                stack.mul_(1 - group["lr"] * group["weight_decay"])
                stack.add_(
                    orthogonalize(ahead.to(self.dtype or ahead.dtype)), alpha=-group["lr"] * _compute_scale(stack)
                )


def _compute_scale(stack: Tensor) -> float:
    """Return the factor of the step: above 1 for more rows than columns, whose output vector is longer too."""
    rows, columns = stack.shape[-2:]
    return max(1.0, rows / columns) ** 0.5


def get_momentum(step: int) -> float:
    """Return the momentum for a step, counted from 0."""
    return MOMENTUM - (MOMENTUM - FIRST_MOMENTUM) * max(0.0, 1 - step / WARMUP)

"""Muon: the optimizer of matrices that moves all their directions alike.

A layer's matrix turns one vector into another, so what matters of its update is what it does to vectors: its singular
values. The gradient's are very unequal, a few large ones and many next to nothing, and AdamW, which looks at each
number on its own, leaves them so. Muon takes the running average of the gradients, M = U S V', and moves the matrix
by U V', the nearest one whose singular values are all one: rare directions are learned as fast as frequent ones.

After Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with the decay of Liu et al. 2025,
"Muon is Scalable for LLM Training". `torch.optim.Muon` is the same function, matrix by matrix and
in bfloat16. Here all matrices of one shape are one stack (n, r, c) and one batched product, in float32 unless training
is in bfloat16: many times as fast on processors that have none (docs/results.md).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic below: singular values of 0.01 to 1 come near one in five steps
ITERATIONS = 5
MOMENTUM, FIRST_MOMENTUM, WARMUP = 0.95, 0.85, 100  # less of it in the first steps, when gradients change fast
EPSILON = 1e-7


def orthogonalized(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """For each of the matrices (n, r, c), U S V', about U V': singular values between 0.5 and 1.5 in place of S.

    Newton-Schulz: an odd polynomial of a matrix is that polynomial of its singular values, p(M) = U p(S) V', and so
    needs nothing but products. p(s) = A s + B s^3 + C s^5, over and over, brings what lies between 0 and 1 near one;
    its steep rise from 0 matters more than to end at exactly one. Values below about 0.001 of the norm stay small.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    X = matrices.mT if tall else matrices  # the smaller product is that of the shorter side
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)  # the largest singular value is at most one now
    for _ in range(iterations):
        S = X @ X.mT  # (n, r, r)
        X = torch.baddbmm(X, torch.baddbmm(S, S, S, beta=B, alpha=C), X, beta=A)  # A X + (B S + C S S) X
    return X.mT if tall else X


class Muon(torch.optim.Optimizer):
    """Muon over stacks (n, r, c), each of n matrices of r rows and c columns."""

    def __init__(
        self, stacks: Sequence[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype | None = None
    ) -> None:
        """The products are of that precision, by default that of the stacks."""
        super().__init__(stacks, {"lr": lr, "weight_decay": weight_decay, "momentum": MOMENTUM})
        self.dtype = dtype
        for stack in stacks:
            self.state[stack]["momentum"] = torch.zeros_like(stack)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix, by its gradient and those before; nothing else is told."""
        for group in self.param_groups:
            for stack in group["params"]:
                average = self.state[stack]["momentum"]
                average.lerp_(stack.grad, 1 - group["momentum"])
                ahead = stack.grad.lerp(average, group["momentum"])  # Nesterov: as if the average were a step further
                stack.mul_(1 - group["lr"] * group["weight_decay"])
                stack.add_(orthogonalized(ahead.to(self.dtype or ahead.dtype)), alpha=-group["lr"] * scale(stack))


def scale(stack: Tensor) -> float:
    """By how much longer the step of a matrix is that has more rows than columns: its output is then longer too."""
    rows, columns = stack.shape[-2:]
    return max(1.0, rows / columns) ** 0.5


def momentum(step: int) -> float:
    """The momentum of a step, counted from 0."""
    return MOMENTUM - (MOMENTUM - FIRST_MOMENTUM) * max(0.0, 1 - step / WARMUP)

"""Linear layers by oneDNN in place of MKL.

For float32 on a CPU, PyTorch multiplies matrices by MKL, which uses half of the vector units of AMD processors with
AVX-512. oneDNN, which PyTorch contains too, uses all of them. With AVX2 alone MKL is faster (docs/log.md). The operator
of oneDNN, the one that torch.compile calls, has no gradients, so they are written out here.

Shapes: N rows, which are all but the last dimension; I inputs, O outputs.
"""

import platform
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from minigpt.model.gpt import FunctionalLinear

HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and platform.machine() in ("x86_64", "AMD64")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"  # that PyTorch may use
SMALL = 2**13  # numbers of an input: without gradients, starting oneDNN for fewer takes longer than the product


class OneDNNLinear(nn.Linear):
    """`nn.Linear` by the faster product. It has no second derivatives."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x by the weights and add the bias: (..., I) -> (..., O)."""
        return linear(x, self.weight, self.bias)


class OneDNNFunctionalLinear(FunctionalLinear):
    """`FunctionalLinear` by the faster product."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply x (..., I) by the transpose of weight (O, I) and add bias (O,): (..., O)."""
        return linear(x, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x @ weight.T + bias, for (..., I), (O, I) and (O,): (..., O), by oneDNN where it can."""
    is_small = x.numel() < SMALL and not torch.is_grad_enabled()
    if is_small or not can_use_onednn(x, weight):
        return F.linear(x, weight, bias)
    rows = x.flatten(0, -2)  # (N, I)
    out = _Product.apply(rows, weight, bias) if torch.is_grad_enabled() else _multiply(rows, weight, bias)
    return out.view(*x.shape[:-1], -1)


def can_use_onednn(x: Tensor, weight: Tensor) -> bool:
    """Return True if oneDNN multiplies these: float32 on a CPU, outside autocast and the compiler."""
    return (
        HAS_ONEDNN
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() >= 2
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply (N, I) by oneDNN, without gradients."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """`_multiply` with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply x by the weights and add the bias: (N, I), (O, I) and (O,) -> (N, O)."""
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias from that of the result (N, O)."""
        x, weight = ctx.saved_tensors
        return _linear_backward(gradient, x, weight, ctx.needs_input_grad)


def _linear_backward(gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]) -> tuple[Any, Any, Any]:
    """Compute the gradients of a linear layer.

    Args:
        gradient: that of the result, (N, O).
        x: the input (N, I).
        weight: (O, I).
        needed: which of the three gradients to compute.

    Returns:
        The gradients of x (N, I), weight (O, I) and bias (O,), None for those that are not needed.
    """
    needs_x, needs_weight, needs_bias = needed
    with torch.no_grad():
        return (
            linear(gradient, weight.T) if needs_x else None,  # (N, O) @ (O, I)
            _weight_gradient(gradient, x) if needs_weight else None,
            gradient.sum(dim=0) if needs_bias else None,
        )


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Compute gradient.T @ x for (N, O) and (N, I): (O, I). The product with the longer rows is faster."""
    if gradient.shape[1] > x.shape[1]:
        return linear(x.T, gradient.T).T
    return linear(gradient.T, x.T)

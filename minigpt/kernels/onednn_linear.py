"""A linear layer by the faster of the matrix products that PyTorch brings with it.

For float32 on a processor PyTorch multiplies by MKL, which on AMD's with AVX-512 leaves half of their vector units
idle. oneDNN, which PyTorch has too and uses for bfloat16, doesn't (docs/log.md; with AVX2 alone they are alike). So
where it can be had, products are made by its operator, the one that torch.compile calls, and the gradients, which that
operator lacks, are written out below.
"""

import platform
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and platform.machine() in ("x86_64", "AMD64")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class Linear(nn.Linear):
    """`nn.Linear`, its function and its parameters, for rows (N, inputs), but for second derivatives."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Product x @ weight.T + bias, for (N, I), (O, I) and (O,): (N, O), by whatever is fastest for them."""
    if not suits_onednn(x, weight):
        return F.linear(x, weight, bias)
    return Product.apply(x, weight, bias) if torch.is_grad_enabled() else product(x, weight, bias)


def suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies these: float32 on a processor; autocast and the compiler have ways of their own."""
    return (
        HAS_ONEDNN
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() == 2
        and len(x) > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` by oneDNN, which autograd knows nothing of."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Product(torch.autograd.Function):
    """`product`, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, I), (O, I) and (O,) to (N, O)."""
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of x, weight and bias, from that of the result (N, O)."""
        x, weight = ctx.saved_tensors
        return linear_backward(gradient, x, weight, ctx.needs_input_grad)


def linear_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool] = (True, True, True)
) -> tuple[Any, Any, Any]:
    """The gradients of x (N, I), weight (O, I) and bias (O,) that are needed, from that of `linear`'s result (N, O)."""
    of_x, of_weight, of_bias = needed
    with torch.no_grad():
        return (
            linear(gradient, weight.T) if of_x else None,  # (N, O) @ (O, I)
            weight_gradient(gradient, x) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """gradient.T @ x, for (N, O) and (N, I): (O, I); computed the way round whose rows are longer, which is faster."""
    if gradient.shape[1] > x.shape[1]:
        return linear(x.T, gradient.T).T
    return linear(gradient.T, x.T)

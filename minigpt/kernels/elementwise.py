"""RMS norm, rotary positions, token shift, squared ReLU and dropout with hand-written gradients, for a CPU.

An elementwise operation waits for memory, not for arithmetic. Its cost is the number of passes over its tensors, and
what autograd records of these formulas makes two to three times as many passes as their gradients need (docs/log.md).
On a GPU, in the compiler and without gradients, the classes below fall back to the model's own operations.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from minigpt.model import modern
from minigpt.model.modern import EPSILON

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
BYTE_VALUES = 256


def can_use_gradients(x: Tensor) -> bool:
    """Return True if the hand-written gradients can be used for this input."""
    on_cpu = x.device.type == "cpu" and x.dtype in DTYPES
    return on_cpu and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class FastRMSNorm(modern.RMSNorm):
    """RMS norm in fewer passes. Under autocast it rounds its result once for all matrix products that follow."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x: (..., C) -> (..., C)."""
        return _RMSNorm.apply(x) if can_use_gradients(x) else super().forward(x)


class _RMSNorm(torch.autograd.Function):
    """RMS norm and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Normalize x: (..., C) -> (..., C)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype).square_()
        r = square.div_(x.shape[-1]).add_(EPSILON).rsqrt_()
        y = (x * r).to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype)
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Return r (g - y mean(g y)): the part of g along y is lost, since the length is fixed."""
        y, r = ctx.saved_tensors
        along = torch.mul(g, y).mean(dim=-1, keepdim=True)
        across = torch.addcmul(g, y, along, value=-1)
        return across.mul_(r) if across.dtype == r.dtype else across * r


class FastRotary(modern.Rotary):
    """Rotary positions in fewer passes."""

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate pairs of numbers, one of the first half of x (..., D) and one of the second, by D / 2 angles."""
        return _Rotation.apply(x, cos, sin) if can_use_gradients(x) else super().rotate(x, cos, sin)


class _Rotation(torch.autograd.Function):
    """A rotation; its gradient is rotated back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate x: (..., D) -> (..., D)."""
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient, rotated by the opposite angles."""
        cos, sin = ctx.saved_tensors
        return _rotate(g, cos, -sin), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (..., D) in as few passes as PyTorch allows, without gradients."""
    out = torch.empty(x.shape, dtype=cos.dtype)
    (a, b), (first, second) = x.to(cos.dtype).chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(a, sin, out=second).addcmul_(b, cos)
    return out.to(x.dtype)


class FastTokenShift(modern.TokenShift):
    """Token shift in fewer passes."""

    def forward(self, x: Tensor, weight: Tensor, previous: Tensor | None = None) -> Tensor:
        """Shift x (B, T, C) by a weight (C,); `previous` (B, 1, C) came before it, or nothing: (B, T, C)."""
        if previous is None and can_use_gradients(x):
            return _TokenShift.apply(x, weight.to(x.dtype))
        return super().forward(x, weight, previous)


class _TokenShift(torch.autograd.Function):
    """Token shift and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Add a share of the position before to each position: (B, T, C) -> (B, T, C)."""
        ctx.save_for_backward(x, weight)
        y = x.clone()
        y[:, 1:].addcmul_(x[:, :-1], weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return g_t + weight g_(t+1), since x_t is also in the next position, and the sum of g_t x_(t-1)."""
        x, weight = ctx.saved_tensors
        d_x = g.clone()
        d_x[:, :-1].addcmul_(g[:, 1:], weight)
        return d_x, torch.mul(g[:, 1:], x[:, :-1]).sum(dim=(0, 1))


class FastSquaredReLU(modern.SquaredReLU):
    """Squared ReLU in fewer passes."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to each number: (...) -> (...)."""
        return _SquaredReLU.apply(x) if can_use_gradients(x) else super().forward(x)


class _SquaredReLU(torch.autograd.Function):
    """Squared ReLU and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Apply the function to each number: (...) -> (...)."""
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Return 2 max(x, 0) g."""
        (positive,) = ctx.saved_tensors
        return torch.mul(g, positive).mul_(2)


class ByteDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) with a random byte for each number.

    PyTorch draws a random number for each, one after another, which takes a tenth of a training step. With a byte the
    probability is rounded to a multiple of 1/256.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers out: (...) -> (...)."""
        drops = round(self.p * BYTE_VALUES)
        if self.training and 0 < drops < BYTE_VALUES and can_use_gradients(x):
            return _ByteDropout.apply(x, drops)
        return super().forward(x)


class _ByteDropout(torch.autograd.Function):
    """Dropout and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, drops: int) -> Tensor:
        """Set x to 0 where the random byte is below `drops`: (...) -> (...)."""
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)  # eight bytes each
        drawn, ctx.drops = words.view(torch.uint8)[: x.numel()].view(x.shape), drops
        ctx.save_for_backward(drawn)
        return x * _compute_dropout_factors(x, drawn, drops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, multiplied by the same factors."""
        (drawn,) = ctx.saved_tensors
        return g * _compute_dropout_factors(g, drawn, ctx.drops), None


def _compute_dropout_factors(like: Tensor, drawn: Tensor, drops: int) -> Tensor:
    """Return 0 for bytes below `drops`, and for the others the factor that keeps the mean."""
    return drawn.to(like.dtype).ge_(drops).mul_(BYTE_VALUES / (BYTE_VALUES - drops))  # numbers: bools are slow

"""RMS norm, rotary positions, token shift, squared ReLU and dropout, their gradients written out, on a processor.

What works on each number by itself waits for memory, not for arithmetic: it costs as many passes over its tensors as
it makes. Autograd's record of these formulas makes two to three times as many as their gradients need (docs/log.md).
Elsewhere, and for the compiler, they are PyTorch's own operations.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WRITTEN_OUT = (torch.float32, torch.float64, torch.bfloat16)
BYTES = 256  # different ones
EPSILON = 1e-6  # of the mean square: zeros stay zeros


def written_out(x: Tensor) -> bool:
    """Whether the gradients below pay."""
    plain = x.device.type == "cpu" and x.dtype in WRITTEN_OUT
    return plain and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def rms_norm(x: Tensor) -> Tensor:
    """Each vector (..., C) at a length of sqrt(C): x / sqrt(mean(x^2)) (Zhang and Sennrich 2019).

    Under autocast it is rounded here, once, for all the matrix products that follow.
    """
    return RMSNorm.apply(x) if written_out(x) else F.rms_norm(x, x.shape[-1:], eps=EPSILON)


class RMSNorm(torch.autograd.Function):
    """`rms_norm`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square_()
        r = square.div_(x.shape[-1]).add_(EPSILON).rsqrt_()
        y = (x * r).to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype)
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """The part of g that is along y is lost, since the length is given: r (g - y mean(g y))."""
        y, r = ctx.saved_tensors
        along = torch.mul(g, y).mean(dim=-1, keepdim=True)
        across = torch.addcmul(g, y, along, value=-1)
        return across.mul_(r) if across.dtype == r.dtype else across * r


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn vectors (..., D): number i of the first half and of the second are a point, turned by the i-th angle.

    The angles' cosines and sines, (..., D / 2), broadcast against each half.
    """
    if written_out(x):
        return Rotation.apply(x, cos, sin)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).type_as(x)


class Rotation(torch.autograd.Function):
    """`rotate`, and its gradient: turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        """Gradients are turned the other way."""
        cos, sin = ctx.saved_tensors
        return turned(g, cos, -sin), None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate`, in as few passes as PyTorch allows, and without a record."""
    out = torch.empty(x.shape, dtype=cos.dtype)
    (a, b), (first, second) = x.to(cos.dtype).chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(a, sin, out=second).addcmul_(b, cos)
    return out.to(x.dtype)


def token_shift(x: Tensor, share: Tensor) -> Tensor:
    """Add to each position of (B, T, C) that share (C,) of the one before it: x_t + share x_(t-1), and x_(-1) is 0."""
    share = share.to(x.dtype)
    return TokenShift.apply(x, share) if written_out(x) else x + F.pad(x[:, :-1] * share, (0, 0, 1, 0))


class TokenShift(torch.autograd.Function):
    """`token_shift`, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        ctx.save_for_backward(x, share)
        y = x.clone()
        y[:, 1:].addcmul_(x[:, :-1], share)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        """Each position is also in the one after it: g_t + share g_(t+1); and the share's is the sum of g_t x_(t-1)."""
        x, share = ctx.saved_tensors
        of_x = g.clone()
        of_x[:, :-1].addcmul_(g[:, 1:], share)
        return of_x, torch.mul(g[:, 1:], x[:, :-1]).sum(dim=(0, 1))


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021, "Primer"): zero for most numbers, and steeper for the others than a ReLU."""
    return SquaredReLU.apply(x) if written_out(x) else F.relu(x).square()


class SquaredReLU(torch.autograd.Function):
    """`squared_relu`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(...) to (...)."""
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """2 max(x, 0) g."""
        (positive,) = ctx.saved_tensors
        return torch.mul(g, positive).mul_(2)


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """In training each number is 0 with that probability, to a 256th, the others larger (Srivastava et al. 2014).

    PyTorch draws a number for each, one after another, a tenth of a training step; here a byte is enough.
    """
    drops = round(share * BYTES)
    if training and 0 < drops < BYTES and written_out(x):
        return Dropout.apply(x, drops)
    return F.dropout(x, share, training)


class Dropout(torch.autograd.Function):
    """`dropout`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, drops: int) -> Tensor:
        """(...) to (...), 0 where a byte is below `drops`."""
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)  # eight bytes each
        drawn, ctx.drops = words.view(torch.uint8)[: x.numel()].view(x.shape), drops
        ctx.save_for_backward(drawn)
        return x * factors(x, drawn, drops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        """By the same factors."""
        (drawn,) = ctx.saved_tensors
        return g * factors(g, drawn, ctx.drops), None


def factors(like: Tensor, drawn: Tensor, drops: int) -> Tensor:
    """0 for bytes below `drops`, for the others what makes up for those."""
    return drawn.to(like.dtype).ge_(drops).mul_(BYTES / (BYTES - drops))  # in numbers: truth values are slow

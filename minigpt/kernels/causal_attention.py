"""Causal attention, and its gradient written out, for short windows on a processor.

PyTorch's fused attention never forms the (T, T) weights and computes them twice; where a window is short they fit in
the processor's cache, and to keep them for the backward pass is up to a quarter faster (docs/log.md).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from minigpt.kernels.elementwise import written_out

LONGEST = 256  # tokens: with more, the weights that are kept take too much memory
STRETCH = 64  # queries whose weights are computed at once, for the keys up to the last of them and no more


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What each position gathers from those up to itself: queries, keys and values (B, H, T, D) to (B, H, T, D)."""
    if q.shape[2] <= LONGEST and written_out(q):
        return CausalAttention.apply(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class CausalAttention(torch.autograd.Function):
    """`causal_attention`, and its gradients."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        """Queries, keys and values (B, H, T, D) to (B, H, T, D)."""
        q, k, v = (part.flatten(0, 1) for part in parts)  # (B * H, T, D)
        weights = attention_weights(q, k)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.shape = parts[0].shape
        return gathered(weights, v).view(ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradients of queries, keys and values."""
        q, k, v, *weights = ctx.saved_tensors
        found = attention_backward(gradient.flatten(0, 1), q, k, v, weights)
        return tuple(part.view(ctx.shape) for part in found)


def stretches(T: int) -> list[tuple[int, int]]:
    """T queries in stretches, each from one position to before another: what lies after it, none of it heeds."""
    return [(start, min(start + STRETCH, T)) for start in range(0, T, STRETCH)]


def attention_weights(q: Tensor, k: Tensor) -> list[Tensor]:
    """How much each position heeds each up to itself, by queries and keys (N, T, D): (N, t, end) for each stretch."""
    T, D = q.shape[1:]
    future = torch.full((T, T), float("-inf"), dtype=q.dtype).triu(1)
    return [
        torch.baddbmm(future[start:end, :end], q[:, start:end], k[:, :end].mT, alpha=D**-0.5).softmax(dim=-1)
        for start, end in stretches(T)
    ]


def gathered(weights: Sequence[Tensor], v: Tensor) -> Tensor:
    """The values (N, T, D) in those shares: (N, T, D)."""
    found = torch.empty_like(v)
    for part, (start, end) in zip(weights, stretches(v.shape[1]), strict=True):
        torch.bmm(part, v[:, :end], out=found[:, start:end])
    return found


def attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The gradients of queries, keys and values, (3, N, T, D), from that of what was gathered, (N, T, D)."""
    found = q.new_zeros(3, *q.shape)
    d_q, d_k, d_v = found
    for part, (start, end) in zip(weights, stretches(q.shape[1]), strict=True):
        d_gathered = gradient[:, start:end]
        d_part = d_gathered @ v[:, :end].mT  # (N, t, end)
        d_scores = torch._softmax_backward_data(d_part, part, -1, q.dtype).mul_(q.shape[-1] ** -0.5)
        torch.bmm(d_scores, k[:, :end], out=d_q[:, start:end])
        d_k[:, :end].baddbmm_(d_scores.mT, q[:, start:end])
        d_v[:, :end].baddbmm_(part.mT, d_gathered)
    return found

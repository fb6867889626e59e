"""Causal attention, and its gradient written out, for short windows on a processor.

PyTorch's fused attention never forms the (T, T) weights and computes them twice; where a window is short they fit in
the processor's cache, and to keep them for the backward pass is a quarter faster (docs/log.md).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LONGEST = 256  # tokens: with more, the weights that are kept take too much memory


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What each position gathers from those up to itself: queries, keys and values (B, H, T, D) to (B, H, T, D)."""
    kept = q.device.type == "cpu" and q.shape[2] <= LONGEST and q.dtype in (torch.float32, torch.float64)
    if kept and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return CausalAttention.apply(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class CausalAttention(torch.autograd.Function):
    """`causal_attention`, and its gradients."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        """Queries, keys and values (B, H, T, D) to (B, H, T, D)."""
        q, k, v = (part.flatten(0, 1) for part in parts)  # (B * H, T, D)
        weights = attention_weights(q, k)
        ctx.save_for_backward(q, k, v, weights)
        ctx.shape = parts[0].shape
        return (weights @ v).view(ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradients of queries, keys and values."""
        found = attention_backward(gradient.flatten(0, 1), *ctx.saved_tensors)
        return tuple(part.view(ctx.shape) for part in found)


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """How much each position heeds each up to itself, (N, T, T), by queries and keys (N, T, D)."""
    T, D = q.shape[1:]
    future = torch.full((T, T), float("-inf"), dtype=q.dtype).triu(1)
    return torch.baddbmm(future, q, k.mT, alpha=D**-0.5).softmax(dim=-1)


def attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor) -> Tensor:
    """The gradients of queries, keys and values, (3, N, T, D), from that of what was gathered, (N, T, D)."""
    d_weights = gradient @ v.mT  # (N, T, T)
    d_scores = torch._softmax_backward_data(d_weights, weights, -1, q.dtype).mul_(q.shape[-1] ** -0.5)
    found = q.new_empty(3, *q.shape)
    torch.bmm(d_scores, k, out=found[0])
    torch.bmm(d_scores.mT, q, out=found[1])
    torch.bmm(weights.mT, gradient, out=found[2])
    return found

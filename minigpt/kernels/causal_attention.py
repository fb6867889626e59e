"""Causal attention with a hand-written gradient, for short windows on a CPU.

PyTorch's fused attention never stores the (T, T) weights and computes them twice. Where a window is short they fit in
the processor's cache, and storing them for the backward pass is up to a quarter faster (docs/log.md).

The queries are cut into chunks of 64. The weights of a chunk are computed for the keys up to its last query, and no
weight after that, since the causal mask would set it to zero.

Shapes: N is B * H, T time, D head size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from minigpt.kernels.elementwise import can_use_gradients
from minigpt.model.gpt import ScaledDotProductAttention

MAX_LENGTH = 256  # tokens; the stored weights of longer windows would take too much memory
CHUNK = 64  # queries


class StoredCausalAttention(ScaledDotProductAttention):
    """`ScaledDotProductAttention` that stores its weights for the backward pass. For attention without dropout."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries, keys and values (B, H, T, D) -> (B, H, T, D)."""
        if mask is None and q.shape == k.shape and q.shape[2] <= MAX_LENGTH and can_use_gradients(q):
            return _CausalAttention.apply(q, k, v)
        return super().forward(q, k, v, mask)


class _CausalAttention(torch.autograd.Function):
    """Causal attention and its gradients."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        """Queries, keys and values (B, H, T, D) -> (B, H, T, D)."""
        q, k, v = (part.flatten(0, 1) for part in parts)  # (N, T, D)
        weights = compute_attention_weights(q, k)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.shape = parts[0].shape
        return _average_values(weights, v).view(ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of queries, keys and values."""
        q, k, v, *weights = ctx.saved_tensors
        gradients = _attention_backward(gradient.flatten(0, 1), q, k, v, weights)
        return tuple(part.view(ctx.shape) for part in gradients)


def _query_chunks(T: int) -> list[tuple[int, int]]:
    """Return the first position of each chunk of T queries and the position after its last."""
    return [(start, min(start + CHUNK, T)) for start in range(0, T, CHUNK)]


def compute_attention_weights(q: Tensor, k: Tensor) -> list[Tensor]:
    """Compute the attention weights of queries and keys (N, T, D): (N, chunk, end of the chunk) for each chunk."""
    T, D = q.shape[1:]
    future = torch.full((T, T), float("-inf"), dtype=q.dtype).triu(1)
    return [
        torch.baddbmm(future[start:end, :end], q[:, start:end], k[:, :end].mT, alpha=D**-0.5).softmax(dim=-1)
        for start, end in _query_chunks(T)
    ]


def _average_values(weights: Sequence[Tensor], v: Tensor) -> Tensor:
    """Compute the averages of the values (N, T, D) by the weights of `compute_attention_weights`: (N, T, D)."""
    out = torch.empty_like(v)
    for chunk, (start, end) in zip(weights, _query_chunks(v.shape[1]), strict=True):
        torch.bmm(chunk, v[:, :end], out=out[:, start:end])
    return out


def _attention_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Compute the gradients of queries, keys and values, (3, N, T, D), from that of attention's result, (N, T, D)."""
    gradients = q.new_zeros(3, *q.shape)
    d_q, d_k, d_v = gradients
    for chunk, (start, end) in zip(weights, _query_chunks(q.shape[1]), strict=True):
        d_out = gradient[:, start:end]
        d_weights = d_out @ v[:, :end].mT  # (N, chunk, end)
        d_scores = torch._softmax_backward_data(d_weights, chunk, -1, q.dtype).mul_(q.shape[-1] ** -0.5)
        torch.bmm(d_scores, k[:, :end], out=d_q[:, start:end])
        d_k[:, :end].baddbmm_(d_scores.mT, q[:, start:end])
        d_v[:, :end].baddbmm_(chunk.mT, d_out)
    return gradients

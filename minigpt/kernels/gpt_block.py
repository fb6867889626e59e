"""A block of GPT with a hand-written backward pass.

Autograd records every operation of a forward pass and plays the record backwards. For a small model on a CPU this
bookkeeping costs a tenth of a step. Here a whole block is one entry in the record: forward is that of
`model.gpt.Block`, and backward computes the gradients line by line, from the last to the first. The tests compare
both with autograd in float64.

Shapes: those of model/gpt.py, and N is B * T.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minigpt.config import Config
from minigpt.kernels.causal_attention import MAX_LENGTH, attention_backward, average_values, compute_attention_weights
from minigpt.kernels.elementwise import can_use_gradients
from minigpt.kernels.onednn_linear import OneDNNLinear, linear, linear_backward
from minigpt.model.gpt import Block
from minigpt.model.kv_cache import KVCache

EPSILON = 1e-5  # of the layer norms


def can_fuse_blocks(config: Config, device: str) -> bool:
    """Return True if a training run with this configuration can use `FusedBlock`, and is faster with it.

    It computes the lecture's function in float32 on a CPU, without dropout.
    """
    training = config.training
    return (
        device == "cpu"
        and config.model.architecture == "gpt"
        and config.model.implementation == "fast"
        and config.model.activation == "relu"
        and not config.model.dropout
        and config.model.block_size <= MAX_LENGTH
        and training.precision == "fp32"
        and not training.compile
    )


class FusedBlock(Block):
    """`Block` as one entry in autograd's record, where it is trained in full precision with nothing added to it."""

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the block: (B, T, C) -> (B, T, C)."""
        if cache is not None or not can_use_gradients(x) or not self._is_plain():
            return super().forward(x, cache)
        layers = (self.ln1, self.attention.qkv, self.attention.proj, self.ln2, self.ffwd.up, self.ffwd.down)
        parameters = (parameter for layer in layers for parameter in (layer.weight, layer.bias))
        B, T, _ = x.shape
        return _FusedBlock.apply(x.flatten(0, 1), T, self.attention.n_head, *parameters).view(B, T, -1)

    def _is_plain(self) -> bool:
        """Return True if no autocast, adapter, quantization or hook changes what the parts of the block compute."""
        linears = (self.attention.qkv, self.attention.proj, self.ffwd.up, self.ffwd.down)
        parts = (*linears, self.ln1, self.ln2, self.attention, self.attention.attend, self.ffwd)
        return (
            all(type(layer) is OneDNNLinear for layer in linears)
            and not any(has_hooks(part) for part in parts)
            and self.ln1.eps == self.ln2.eps == EPSILON
            and not torch.is_autocast_enabled("cpu")
        )


def has_hooks(module: nn.Module) -> bool:
    """Return True if a module has hooks, which a kernel would skip."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


class _FusedBlock(torch.autograd.Function):
    """Communication, then computation, each added to its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, T: int, H: int, *parameters: Any) -> Tensor:
        """Compute the block for N = B T rows: (N, C) -> (N, C)."""
        g1, b1, w_qkv, b_qkv, w_proj, b_proj, g2, b2, w_up, b_up, w_down, b_down = parameters
        C = x.shape[1]
        normed1, *moments1 = torch.native_layer_norm(x, (C,), g1, b1, EPSILON)
        qkv = linear(normed1, w_qkv, b_qkv)  # (N, 3C)
        q, k, v = _split_heads(qkv, 3, T, H)  # (B * H, T, D) each
        weights = compute_attention_weights(q, k)
        attended = _join_heads(average_values(weights, v)[None], H)  # (N, C)
        middle = linear(attended, w_proj, b_proj).add_(x)  # (N, C)
        normed2, *moments2 = torch.native_layer_norm(middle, (C,), g2, b2, EPSILON)
        hidden = linear(normed2, w_up, b_up).relu_()  # (N, 4C)
        ctx.save_for_backward(
            *(x, normed1, *moments1, q, k, v, attended, middle, normed2, *moments2, hidden), *parameters, *weights
        )
        ctx.T, ctx.H = T, H
        return linear(hidden, w_down, b_down).add_(middle)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and the parameters from that of the result (N, C). d_y is the gradient of y."""
        T, H = ctx.T, ctx.H
        x, normed1, mean1, rstd1, q, k, v, attended, *rest = ctx.saved_tensors
        middle, normed2, mean2, rstd2, hidden, *rest = rest
        g1, b1, w_qkv, b_qkv, w_proj, _, g2, b2, w_up, _, w_down, _, *weights = rest
        # computation
        d_hidden, d_w_down, d_b_down = linear_backward(d_out, hidden, w_down)
        d_hidden = torch.ops.aten.threshold_backward(d_hidden, hidden, 0)  # 0 where the ReLU gave 0
        d_normed2, d_w_up, d_b_up = linear_backward(d_hidden, normed2, w_up)
        d_middle, d_g2, d_b2 = _layer_norm_backward(d_normed2, middle, mean2, rstd2, g2, b2)
        d_middle += d_out
        # communication
        d_attended, d_w_proj, d_b_proj = linear_backward(d_middle, attended, w_proj)
        d_heads = _split_heads(d_attended, 1, T, H)[0]  # (B * H, T, D)
        d_qkv = _join_heads(attention_backward(d_heads, q, k, v, weights), H)  # (N, 3C)
        d_normed1, d_w_qkv, d_b_qkv = linear_backward(d_qkv, normed1, w_qkv)
        d_x, d_g1, d_b1 = _layer_norm_backward(d_normed1, x, mean1, rstd1, g1, b1)
        d_x += d_middle
        if b_qkv is None:
            d_b_qkv = None
        d_attention = (d_g1, d_b1, d_w_qkv, d_b_qkv, d_w_proj, d_b_proj)
        return d_x, None, None, *d_attention, d_g2, d_b2, d_w_up, d_b_up, d_w_down, d_b_down


def _split_heads(rows: Tensor, parts: int, T: int, H: int) -> Tensor:
    """Separate the heads of queries, keys and values: (B * T, parts * H * D) -> (parts, B * H, T, D)."""
    B, D = len(rows) // T, rows.shape[1] // (parts * H)
    return rows.view(B, T, parts, H, D).permute(2, 0, 3, 1, 4).reshape(parts, B * H, T, D)


def _join_heads(heads: Tensor, H: int) -> Tensor:
    """Undo `_split_heads`: (parts, B * H, T, D) -> (B * T, parts * H * D)."""
    parts, BH, T, D = heads.shape
    return heads.view(parts, BH // H, H, T, D).permute(1, 3, 0, 2, 4).reshape(BH // H * T, parts * H * D)


def _layer_norm_backward(
    d_out: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gain: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of a layer norm's input (N, C), gain (C,) and bias (C,)."""
    return torch.ops.aten.native_layer_norm_backward(
        d_out, x, list(gain.shape), mean, rstd, gain, bias, [True, True, True]
    )

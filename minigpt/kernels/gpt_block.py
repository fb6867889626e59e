"""A block of GPT with its gradient written out.

Autograd records every operation of a forward pass and plays the record backwards. For a small model on a CPU that
book-keeping, and attention as one operation on two threads, cost a tenth of a step, so here a whole
block is one entry in the record: `forward` is Block's own, and `backward` is what calculus makes of it, line by line
from the last to the first. The tests hold both against autograd, in float64. N is B * T, D the
size of a head; the others are model/gpt.py's.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minigpt.config import Config
from minigpt.kernels.causal_attention import LONGEST, attention_backward, attention_weights, gathered
from minigpt.kernels.onednn_linear import Linear, linear, linear_backward
from minigpt.model.gpt import GPT, Block

EPSILON = 1e-5


def write_out_blocks(model: nn.Module) -> None:
    """Let each block of the GPT be one entry in autograd's record."""
    assert isinstance(model, GPT)
    for block in model.blocks:
        block.forward = partial(forward, block)  # type: ignore[method-assign]


def suits(model: nn.Module, config: Config, device: torch.device) -> bool:
    """Whether that is the same training, and faster: the lecture's function in float32 on a CPU, without dropout."""
    return (
        isinstance(model, GPT)
        and all(type(layer) is Linear for block in model.blocks for layer in layers_of(block))
        and settings_suit(config, device.type)
    )


def settings_suit(config: Config, device: str) -> bool:
    """Whether the settings alone allow it, on a device of that kind."""
    training = config.training
    return (
        device == "cpu"
        and config.model.activation == "relu"
        and not config.model.dropout
        and config.model.block_size <= LONGEST
        and training.precision == "fp32"
        and not training.compile
    )


def forward(block: Block, x: Tensor, T: int) -> Tensor:
    """What `block` makes of (N, C): (N, C)."""
    if not torch.is_grad_enabled():
        return Block.forward(block, x, T)
    qkv, proj, up, down = layers_of(block)
    layers = (block.ln1, qkv, proj, block.ln2, up, down)
    parameters = (parameter for layer in layers for parameter in (layer.weight, layer.bias))
    return WrittenOut.apply(x, T, block.attention.n_head, *parameters)


def layers_of(block: Block) -> tuple[Linear, Linear, Linear, Linear]:
    """Its linear layers, or whatever has taken their places."""
    return block.attention.qkv, block.attention.proj, block.ffwd.up, block.ffwd.down


class WrittenOut(torch.autograd.Function):
    """A block: communication, then computation, each added to what is there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, T: int, H: int, *parameters: Any) -> Tensor:
        """(N, C) to (N, C)."""
        g1, b1, w_qkv, b_qkv, w_proj, b_proj, g2, b2, w_up, b_up, w_down, b_down = parameters
        C = x.shape[1]
        normed1, *moments1 = torch.native_layer_norm(x, (C,), g1, b1, EPSILON)
        qkv = linear(normed1, w_qkv, b_qkv)  # (N, 3C)
        q, k, v = split_heads(qkv, 3, T, H)  # (B * H, T, D) each
        weights = attention_weights(q, k)
        heeded = join_heads(gathered(weights, v)[None], H)  # (N, C)
        middle = linear(heeded, w_proj, b_proj).add_(x)  # (N, C)
        normed2, *moments2 = torch.native_layer_norm(middle, (C,), g2, b2, EPSILON)
        hidden = linear(normed2, w_up, b_up).relu_()  # (N, 4C)
        ctx.save_for_backward(
            *(x, normed1, *moments1, q, k, v, heeded, middle, normed2, *moments2, hidden), *parameters, *weights
        )
        ctx.T, ctx.H = T, H
        return linear(hidden, w_down, b_down).add_(middle)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x and the parameters, from that of the result (N, C). d_y is that of y."""
        T, H = ctx.T, ctx.H
        x, normed1, mean1, rstd1, q, k, v, heeded, *rest = ctx.saved_tensors
        middle, normed2, mean2, rstd2, hidden, *rest = rest
        g1, b1, w_qkv, b_qkv, w_proj, _, g2, b2, w_up, _, w_down, _, *weights = rest
        # computation
        d_hidden, d_w_down, d_b_down = linear_backward(d_out, hidden, w_down)
        d_hidden = torch.ops.aten.threshold_backward(d_hidden, hidden, 0)  # nothing where the ReLU gave 0
        d_normed2, d_w_up, d_b_up = linear_backward(d_hidden, normed2, w_up)
        d_middle, d_g2, d_b2 = norm_backward(d_normed2, middle, mean2, rstd2, g2, b2)
        d_middle += d_out
        # communication
        d_gathered, d_w_proj, d_b_proj = linear_backward(d_middle, heeded, w_proj)
        d_rows = split_heads(d_gathered, 1, T, H)[0]  # (B * H, T, D)
        d_qkv = join_heads(attention_backward(d_rows, q, k, v, weights), H)  # (N, 3C)
        d_normed1, d_w_qkv, d_b_qkv = linear_backward(d_qkv, normed1, w_qkv)
        d_x, d_g1, d_b1 = norm_backward(d_normed1, x, mean1, rstd1, g1, b1)
        d_x += d_middle
        if b_qkv is None:
            d_b_qkv = None
        of_attention = (d_g1, d_b1, d_w_qkv, d_b_qkv, d_w_proj, d_b_proj)
        return d_x, None, None, *of_attention, d_g2, d_b2, d_w_up, d_b_up, d_w_down, d_b_down


def split_heads(rows: Tensor, parts: int, T: int, H: int) -> Tensor:
    """So many parts side by side, each of H heads, (B * T, parts * H * D), one after another: (parts, B * H, T, D)."""
    B, D = len(rows) // T, rows.shape[1] // (parts * H)
    return rows.view(B, T, parts, H, D).permute(2, 0, 3, 1, 4).reshape(parts, B * H, T, D)


def join_heads(heads: Tensor, H: int) -> Tensor:
    """What `split_heads` undoes: (parts, B * H, T, D) to (B * T, parts * H * D)."""
    parts, BH, T, D = heads.shape
    return heads.view(parts, BH // H, H, T, D).permute(1, 3, 0, 2, 4).reshape(BH // H * T, parts * H * D)


def norm_backward(
    d_out: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gain: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of a layer norm's input (N, C), gain (C,) and bias (C,)."""
    return torch.ops.aten.native_layer_norm_backward(
        d_out, x, list(gain.shape), mean, rstd, gain, bias, [True, True, True]
    )

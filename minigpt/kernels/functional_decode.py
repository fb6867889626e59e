"""Decoding of GPT by few operations of PyTorch: what the model's forward computes, without its modules.

A small model spends most of the time of a token in the calls of its modules, and past block_size in filling a cache
that nobody reads. This decoder calls the operations one after another. Numba's loops are faster, but in the time in
which Numba starts, this decoder writes two thousand tokens.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.kernels.decoder import Sampler
from minigpt.kernels.parameter_tables import list_parameters
from minigpt.kernels.plain_model import LAYER_NORM_EPSILON
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import ContextWindow


class _Block(NamedTuple):
    """The parameters of a block, in the order of `list_parameters`."""

    norm1: Tensor
    norm1_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    proj: Tensor
    proj_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor


class FunctionalDecoder:
    """Continues the rows of a GPT's context window, up to block_size with a KV cache, and past it without."""

    @torch.no_grad()
    def __init__(self, window: ContextWindow) -> None:
        """Take the model's parameters, and copy the cached keys and values.

        Args:
            window: a window of a plain GPT (`is_plain_model`) that has read a prompt.
        """
        model, cache = window.model, window.cache
        assert isinstance(model, GPT)
        assert cache is not None
        parameters = list_parameters(model)
        assert parameters is not None
        flat: list = [parameter if parameter is None else parameter.detach() for parameter in parameters]
        self.blocks = [_Block(*flat[n : n + 12]) for n in range(0, len(flat) - 6, 12)]
        self.tokens, self.positions, self.norm, self.norm_bias, self.head, self.head_bias = flat[-6:]
        self.window, self.config, self.length = window, model.config, cache.length
        room = (0, 0, 0, self.config.block_size - self.length)
        self.cache = [F.pad(stored, room) for stored in cache.keys_and_values()]  # (2, B, H, block_size, D) each

    def stream(self, token: Tensor, count: int, sampler: Sampler) -> Iterator[Tensor]:
        """Yield `count` tokens (B,) that follow `token` (B,), and add those that were read to the window."""
        for _ in range(count):
            self.window.append(token[:, None])
            with torch.inference_mode():
                token = sampler.choose(self._read(token))
            yield token

    def _read(self, token: Tensor) -> Tensor:
        """Return the logits (B, V) after a token (B,), which is the window's last."""
        assert self.window.idx is not None
        if self.length == self.config.block_size:  # the window has moved: all its tokens have new positions
            return self._predict(self.window.idx, 0)
        self.length += 1
        return self._predict(token[:, None], self.length - 1)

    def _predict(self, idx: Tensor, position: int) -> Tensor:
        """Return the logits (B, V) after tokens (B, T), the first of which has this position."""
        (B, T), C, H = idx.shape, self.config.n_embd, self.config.n_head
        x = (F.embedding(idx, self.tokens) + self.positions[position : position + T]).view(B * T, C)
        for layer, p in enumerate(self.blocks):
            normed = F.layer_norm(x, (C,), p.norm1, p.norm1_bias, LAYER_NORM_EPSILON)
            qkv = F.linear(normed, p.qkv, p.qkv_bias).view(B, T, 3, H, C // H).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
            attended = self._attend(layer, qkv, position).transpose(1, 2).reshape(B * T, C)
            x = x + F.linear(attended, p.proj, p.proj_bias)
            normed = F.layer_norm(x, (C,), p.norm2, p.norm2_bias, LAYER_NORM_EPSILON)
            x = x + F.linear(self._activate(F.linear(normed, p.up, p.up_bias)), p.down, p.down_bias)
        x = F.layer_norm(x.view(B, T, C)[:, -1], (C,), self.norm, self.norm_bias, LAYER_NORM_EPSILON)
        return F.linear(x, self.head, self.head_bias)

    def _attend(self, layer: int, qkv: Tensor, position: int) -> Tensor:
        """Attend with the queries of qkv (3, B, H, T, D): (B, H, T, D). A single token sees those before it too."""
        q, k, v = qkv.unbind(0)
        T = q.shape[2]
        if T == 1:
            self.cache[layer][:, :, :, position] = qkv[1:, :, :, 0]
            k, v = self.cache[layer][:, :, :, : position + 1].unbind(0)
        return F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)

    def _activate(self, x: Tensor) -> Tensor:
        """Apply the activation, in place where it can be."""
        if self.config.activation == "relu":
            return x.relu_()
        return F.gelu(x, approximate="tanh" if self.config.activation == "gelu" else "none")

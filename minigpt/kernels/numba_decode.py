"""Decoding one token after another with GPT in loops compiled by Numba, on a CPU.

For a single token, PyTorch spends most of its time outside the arithmetic: some sixty calls of a few microseconds
each, around a network that takes one core ten microseconds. Here the whole step is one compiled function, sampling
included, for a batch of one. It computes the function of model/gpt.py: compare the two files. The cache stores keys
and values (D, T), so that vectors run along the positions.

A block can be split in two parts as in Megatron-LM (Shoeybi et al. 2019). Each part has half of the heads and half of
the hidden units, with their columns of the first matrix and their rows of the second. The results of both are added.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import prange
from numpy import ndarray
from torch.nn import functional as F

from minigpt.kernels.numba_jit import njit_allocating, njit_inner, njit_parallel
from minigpt.kernels.numba_ops import ACTIVATIONS, activate, add_product, empty_array, exp, find_largest, layer_norm
from minigpt.kernels.numba_sampling import Sampling, sample_token
from minigpt.kernels.numba_weights import Weights, extract_weights
from minigpt.model.kv_cache import ContextWindow


class CachedDecoder:
    """Continues a context window of one row until it is full."""

    def __init__(self, window: ContextWindow, token: int, sampling: Sampling, parts: int) -> None:
        """Copy the keys and values of the window's cache.

        Args:
            window: a window of a GPT that has read a prompt.
            token: the token after it, which the window has not read.
            sampling: how to choose tokens.
            parts: the number of parts that each layer is split into.
        """
        model, cache = window.model, window.cache
        assert cache is not None
        self.weights = extract_weights(model, parts)
        self.scratch, self.sampling = create_scratch(self.weights), sampling
        self.activation = ACTIVATIONS.index(model.config.activation)
        stored = torch.stack(cache.keys_and_values())[:, :, 0]  # (L, 2, H, S, D)
        stored = F.pad(stored, (0, 0, 0, model.config.block_size - cache.length))  # (L, 2, H, T, D)
        self.keys, self.values = (part.mT.contiguous().numpy() for part in stored.unbind(1))  # (L, H, D, T) each
        self.token, self.position = token, cache.length

    def decode(self, uniforms: ndarray) -> ndarray:
        """Return the next tokens (N,), one for each random number in [0, 1)."""
        state = self.weights, self.activation, self.keys, self.values, self.scratch
        if len(self.scratch.sums) == 1:
            tokens = decode_tokens(*state, self.token, self.position, self.sampling, uniforms)
        else:
            tokens, token = np.empty(len(uniforms), np.int64), self.token
            logits = self.scratch.logits.reshape(-1)[: len(self.weights.tokens)]
            for n, uniform in enumerate(uniforms.tolist()):
                decode_token_in_parts(*state, token, self.position + n)
                tokens[n] = token = sample_token(logits, self.sampling, uniform)
        self.token, self.position = int(tokens[-1]), self.position + len(tokens)
        return tokens


class Scratch(NamedTuple):
    """The activations of one token, a row for each of the P parts; the parts share x."""

    x: ndarray  # (C,)
    normed: ndarray  # (P, C)
    qkv: ndarray  # (P, 3C / P)
    scores: ndarray  # (P, T)
    attended: ndarray  # (P, C / P)
    hidden: ndarray  # (P, F / P)
    sums: ndarray  # (P, C)
    logits: ndarray  # (P, V / P)
    rows: ndarray  # (P, F), scratch memory of `add_product`


def create_scratch(w: Weights) -> Scratch:
    """Allocate the activations of one token."""
    P, C, width = w.head.shape
    T, F = len(w.positions), P * w.up.shape[3]
    return Scratch(
        x=empty_array(C),
        normed=empty_array(P, C),
        qkv=empty_array(P, 3 * C // P),
        scores=empty_array(P, T),
        attended=empty_array(P, C // P),
        hidden=empty_array(P, F // P),
        sums=empty_array(P, C),
        logits=empty_array(P, width),
        rows=np.empty((P, F), np.int64),
    )


@njit_allocating
def decode_tokens(
    w: Weights,
    activation: int,
    keys: ndarray,  # (L, H, D, T)
    values: ndarray,  # (L, H, D, T)
    s: Scratch,
    token: int,  # the last one, not yet in the cache
    position: int,
    sampling: Sampling,
    uniforms: ndarray,  # (N,), a random number in [0, 1) for each new token
) -> ndarray:
    """Return the N tokens that follow a token at a position; the last of them is not in the cache afterwards."""
    tokens = np.empty(len(uniforms), np.int64)
    logits = s.logits.reshape(-1)[: len(w.tokens)]
    for n in range(len(uniforms)):
        decode_token(w, activation, keys, values, s, token, position + n)
        token = sample_token(logits, sampling, uniforms[n])
        tokens[n] = token
    return tokens


@njit_inner
def decode_token(
    w: Weights, activation: int, keys: ndarray, values: ndarray, s: Scratch, token: int, position: int
) -> None:
    """Add a token at a position to the cache and write the logits of the next token to the scratch memory."""
    embed(w, s, token, position)
    for stage in range(2 * len(w.up) + 1):
        for part in range(len(s.sums)):
            _run_part(w, activation, keys, values, s, stage, position, part)
        _add_sums(w, s, stage)


@njit_parallel
def decode_token_in_parts(
    w: Weights, activation: int, keys: ndarray, values: ndarray, s: Scratch, token: int, position: int
) -> None:
    """Do the same with a thread for each part."""
    embed(w, s, token, position)
    for stage in range(2 * len(w.up) + 1):
        for part in prange(len(s.sums)):  # unsigned: without the conversion, Numba compiles each function twice
            _run_part(w, activation, keys, values, s, stage, position, np.int64(part))
        _add_sums(w, s, stage)


@njit_inner
def _run_part(
    w: Weights, activation: int, keys: ndarray, values: ndarray, s: Scratch, stage: int, position: int, part: int
) -> None:
    """Compute one part of a stage: the attention or the feed-forward of a layer, or the logits."""
    layer = stage // 2
    if layer == len(w.up):
        compute_logits(w, s, part)
    elif stage % 2:
        _compute_feed_forward(w, activation, s, layer, part)
    else:
        _compute_attention(w, keys, values, s, layer, position, part)


@njit_inner
def embed(w: Weights, s: Scratch, token: int, position: int) -> None:
    """Add the embeddings of the token and of its position."""
    for c in range(len(s.x)):
        s.x[c] = w.tokens[token, c] + w.positions[position, c]


@njit_inner
def _compute_attention(
    w: Weights, keys: ndarray, values: ndarray, s: Scratch, layer: int, position: int, part: int
) -> None:
    """Compute what one part of the heads adds to x, and add their keys and values to the cache."""
    _, H, D, _ = keys.shape
    heads = H // len(s.sums)
    qkv, attended = s.qkv[part], s.attended[part]
    layer_norm(s.x, w.ln1[layer], s.normed[part])
    multiply(s.normed[part], w.qkv[layer, part], w.qkv_affine[layer, part], qkv, s.rows[part])
    for n in range(heads):
        h, own = part * heads + n, qkv[3 * D * n : 3 * D * (n + 1)]
        for d in range(D):
            keys[layer, h, d, position] = own[D + d]
            values[layer, h, d, position] = own[2 * D + d]
        out = attended[D * n : D * (n + 1)]
        attend(own[:D], keys[layer, h], values[layer, h], s.scores[part, : position + 1], out, s.rows[part])
    s.sums[part, :] = 0
    add_product(attended, w.proj[layer, part], s.sums[part], s.rows[part])


@njit_inner
def _compute_feed_forward(w: Weights, activation: int, s: Scratch, layer: int, part: int) -> None:
    """Compute what one part of the hidden units adds to x."""
    layer_norm(s.x, w.ln2[layer], s.normed[part])
    multiply(s.normed[part], w.up[layer, part], w.up_affine[layer, part], s.hidden[part], s.rows[part])
    activate(s.hidden[part], activation)
    s.sums[part, :] = 0
    add_product(s.hidden[part], w.down[layer, part], s.sums[part], s.rows[part])


@njit_inner
def compute_logits(w: Weights, s: Scratch, part: int) -> None:
    """Compute one part of the logits."""
    layer_norm(s.x, w.ln_f, s.normed[part])
    multiply(s.normed[part], w.head[part], w.head_affine[part], s.logits[part], s.rows[part])


@njit_inner
def multiply(x: ndarray, matrix: ndarray, affine: ndarray, out: ndarray, rows: ndarray) -> None:
    """Compute x @ matrix, multiply by the scale and add the bias, into out."""
    out[:] = 0
    add_product(x, matrix, out, rows)
    for o in range(len(out)):
        out[o] = out[o] * affine[0, o] + affine[1, o]


@njit_inner
def _add_sums(w: Weights, s: Scratch, stage: int) -> None:
    """Add to x what the parts of a stage computed: the sum, multiplied by its scale and with its bias."""
    layer = stage // 2
    if layer == len(w.up):
        return
    affine = w.down_affine[layer] if stage % 2 else w.proj_affine[layer]
    for c in range(len(s.x)):
        total = s.sums[0, c]
        for part in range(1, len(s.sums)):
            total += s.sums[part, c]
        s.x[c] += total * affine[0, c] + affine[1, c]


@njit_inner
def attend(q: ndarray, keys: ndarray, values: ndarray, scores: ndarray, out: ndarray, rows: ndarray) -> None:
    """Attend with the query (D,) of one head to the first len(scores) positions of keys and values (D, T)."""
    D, T = len(q), len(scores)
    scale = np.float32(1) / np.float32(np.sqrt(D))
    scores[:] = 0
    add_product(q, keys, scores, rows)
    highest, total = find_largest(scores), np.float32(0)
    for t in range(T):
        scores[t] = exp((scores[t] - highest) * scale)
        total += scores[t]
    whole = D // 4 * 4
    for d in range(0, whole, 4):  # four at a time, so that a score is loaded once for all of them
        a, b, c, e = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for t in range(T):
            a += scores[t] * values[d, t]
            b += scores[t] * values[d + 1, t]
            c += scores[t] * values[d + 2, t]
            e += scores[t] * values[d + 3, t]
        out[d], out[d + 1], out[d + 2], out[d + 3] = a / total, b / total, c / total, e / total
    for d in range(whole, D):
        a = np.float32(0)
        for t in range(T):
            a += scores[t] * values[d, t]
        out[d] = a / total

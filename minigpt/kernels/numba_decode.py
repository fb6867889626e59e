"""Decoding one token after another with GPT in loops compiled by Numba, on a CPU.

For a single token, PyTorch spends most of its time outside the arithmetic: some sixty calls of a few microseconds
each, around a network that takes one core ten microseconds. Here the whole step is one compiled function, sampling
included, for a batch of one. It computes the function of model/gpt.py: compare the two files.

A block can be split in two parts as in Megatron-LM (Shoeybi et al. 2019). Each part has half of the heads and half of
the hidden units, with their columns of the first matrix and their rows of the second. The results of both are added.

Arrays are flat. Shapes: T, C, H, V, L and P as in numba_weights.Shape, D = C / H, F = 4C. The cache stores the keys of
a head in panels (D, WIDTH) of positions, S = T up to a multiple of WIDTH, and its values (T, E), E = D up to a multiple
of COLUMNS.
"""

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy import ndarray

from minigpt.kernels.numba_jit import njit_allocating, njit_inner, njit_parallel
from minigpt.kernels.numba_layers import RELU, array_at, attend_with_cache, normalize, store_in_cache
from minigpt.kernels.numba_matvec import NF4, WIDTH, multiply_packed
from minigpt.kernels.numba_ops import activate, create_zeros
from minigpt.kernels.numba_sampling import Sampling, sample_token
from minigpt.kernels.numba_vectors import COLUMNS, pad, skip
from minigpt.kernels.numba_weights import (
    DOWN,
    DOWN_AFFINE,
    HEAD,
    HEAD_AFFINE,
    LN1,
    LN2,
    LN_F,
    POSITIONS,
    PROJ,
    PROJ_AFFINE,
    QKV,
    QKV_AFFINE,
    TOKENS,
    UP,
    UP_AFFINE,
    Shape,
    Weights,
    copy_cache,
    extract_weights,
)
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
        self.memory, self.sampling = Memory(extract_weights(model, parts)), sampling
        keys, values = copy_cache(cache, slice(1), model.config.block_size)
        self.memory.keys.copy_(keys[:, 0])
        self.memory.values.copy_(values[:, 0])
        self.token, self.position = token, cache.length

    def decode(self, uniforms: ndarray) -> ndarray:
        """Return the next tokens (N,), one for each random number in [0, 1)."""
        arguments = self.memory.arguments
        if self.memory.shape.P == 1:
            tokens = decode_tokens(*arguments, self.token, self.position, self.sampling, uniforms)
        else:
            tokens, token = np.empty(len(uniforms), np.int64), self.token
            for n, uniform in enumerate(uniforms.tolist()):
                decode_token_in_parts(*arguments, token, self.position + n)
                tokens[n] = token = sample_token(self.memory.logits, self.sampling, uniform)
        self.token, self.position = int(tokens[-1]), self.position + len(tokens)
        return tokens


class Layout(NamedTuple):
    """Where the activations of one token begin in the scratch memory.

    The parts share x and the logits. Each part has the other activations in memory of its own.
    """

    x: int  # (C,)
    logits: int  # (P, V / P)
    first_part: int
    normed: int  # (C,), from here on after the beginning of a part
    moments: int  # (2,)
    qkv: int  # (3C / P,)
    scores: int  # (T,)
    attended: int  # (C / P,), with room for a vector that begins in it
    hidden: int  # (F / P,)
    sums: int  # (C,)
    part_size: int


class Memory:
    """The arrays of a decoder: the cache, the activations and the addresses of the weights."""

    def __init__(self, weights: Weights) -> None:
        """Allocate the arrays."""
        self.weights, self.shape = weights, weights.shape
        T, C, H, V, L, P, *_ = self.shape
        D, F = C // H, 4 * C
        S = pad(T, WIDTH)
        self.keys, self.values = create_zeros(L, H, S // WIDTH, D, WIDTH), create_zeros(L, H, T, pad(D))
        own = [pad(n) for n in (C, 2, 3 * C // P, S, C // P + COLUMNS, F // P, C)]
        begins = [sum(own[:n]) for n in range(len(own) + 1)]
        logits = P * pad(-(-V // P))
        layout = Layout(0, pad(C), pad(C) + logits, *begins)
        self.scratch = create_zeros(layout.first_part + P * layout.part_size)
        self.logits = self.scratch[layout.logits : layout.logits + V].numpy()
        self.arguments = (
            self.shape,
            layout,
            weights.outer,
            weights.blocks,
            self.keys.data_ptr(),
            self.values.data_ptr(),
            self.scratch.numpy(),
            np.empty((P, F), np.int64),
        )


@njit_allocating
def decode_tokens(
    s: Shape,
    m: Layout,
    outer: ndarray,
    blocks: ndarray,
    keys: int,
    values: int,
    scratch: ndarray,
    rows: ndarray,
    token: int,
    position: int,
    sampling: Sampling,
    uniforms: ndarray,
) -> ndarray:
    """Return the N tokens that follow a token; the last of them is not in the cache afterwards.

    Args:
        s: the sizes.
        m: where the activations begin in `scratch`.
        outer: the addresses of the weights outside of the blocks, (P, 5).
        blocks: the addresses of the weights in the blocks, (L, P, 10).
        keys: the address of the cached keys, (L, H, S / WIDTH, D, WIDTH).
        values: the address of the cached values, (L, H, T, E).
        scratch: the activations.
        rows: scratch memory for the inputs that a product reads, (P, F).
        token: the last token, not yet in the cache.
        position: its position.
        sampling: how to choose tokens.
        uniforms: a random number in [0, 1) for each new token, (N,).
    """
    tokens = np.empty(len(uniforms), np.int64)
    for n in range(len(uniforms)):
        _embed(s, outer, scratch, token, position + n)
        for stage in range(2 * s.L + 1):
            for part in range(s.P):
                _run_part(s, m, outer, blocks, keys, values, scratch, rows, stage, position + n, part)
            _add_sums(s, m, blocks, scratch, stage)
        token = sample_token(scratch[m.logits : m.logits + s.V], sampling, uniforms[n])
        tokens[n] = token
    return tokens


@njit_parallel
def decode_token_in_parts(
    s: Shape,
    m: Layout,
    outer: ndarray,
    blocks: ndarray,
    keys: int,
    values: int,
    scratch: ndarray,
    rows: ndarray,
    token: int,
    position: int,
) -> None:
    """Add a token to the cache and compute the logits of the next one, with a thread for each part."""
    _embed(s, outer, scratch, token, position)
    for stage in range(2 * s.L + 1):
        for part in prange(s.P):  # unsigned: without the conversion, Numba compiles each function twice
            _run_part(s, m, outer, blocks, keys, values, scratch, rows, stage, position, np.int64(part))
        _add_sums(s, m, blocks, scratch, stage)


@njit_inner
def _embed(s: Shape, outer: ndarray, x: ndarray, token: int, position: int) -> None:
    """Write the sum of the embeddings of the token and of its position to x (C,)."""
    tokens, positions = array_at(outer[0, TOKENS], s.V * s.C), array_at(outer[0, POSITIONS], s.T * s.C)
    for c in range(s.C):
        x[c] = tokens[token * s.C + c] + positions[position * s.C + c]


@njit_inner
def _run_part(
    s: Shape,
    m: Layout,
    outer: ndarray,
    blocks: ndarray,
    keys: int,
    values: int,
    scratch: ndarray,
    rows: ndarray,
    stage: int,
    position: int,
    part: int,
) -> None:
    """Compute one part of a stage: the attention or the feed-forward of a layer, or the logits."""
    layer, own = stage // 2, skip(scratch, m.first_part + part * m.part_size)
    normed, moments = skip(own, m.normed), skip(own, m.moments)
    is_last = layer == s.L
    address = outer[part, LN_F] if is_last else blocks[layer, part, LN2 if stage % 2 else LN1]
    normalize(scratch, array_at(address, s.C), array_at(address + 4 * s.C, s.C), 1, s.C, normed, moments)
    if is_last:
        width = pad(-(-s.V // s.P))
        first = part * width
        size, logits = min(width, s.V - first), skip(scratch, m.logits + first)
        multiply_packed(normed, outer[part, HEAD], s.head_kind, (s.C, size, s.C), None, logits)
        _apply_affine(outer[part, HEAD_AFFINE], size, logits)
    elif stage % 2:
        _compute_feed_forward(s, m, blocks[layer, part], own, rows[part])
    else:
        _compute_attention(s, m, blocks[layer, part], keys, values, own, layer * s.H, position, part)


@njit_inner
def _compute_attention(
    s: Shape,
    m: Layout,
    p: ndarray,
    keys: int,
    values: int,
    own: ndarray,
    first_head: int,
    position: int,
    part: int,
) -> None:
    """Compute what one part of the heads adds to x, and add their keys and values to the cache."""
    D, C = s.C // s.H, s.C // s.P
    S, E = pad(s.T, WIDTH), pad(D)
    qkv, attended, scores = skip(own, m.qkv), skip(own, m.attended), skip(own, m.scores)
    multiply_packed(skip(own, m.normed), p[QKV], s.kind, (s.C, 3 * C, s.C), None, qkv)
    _apply_affine(p[QKV_AFFINE], 3 * C, qkv)
    for n in range(s.H // s.P):
        h, q = first_head + part * (s.H // s.P) + n, skip(qkv, 3 * D * n)
        cache = position, keys + 4 * h * D * S, values + 4 * h * s.T * E
        store_in_cache(skip(q, D), skip(q, 2 * D), cache, D)
        attend_with_cache(q, cache, D, scores, skip(attended, D * n))
    multiply_packed(attended, p[PROJ], s.kind, (C, s.C, C), None, skip(own, m.sums))


@njit_inner
def _compute_feed_forward(s: Shape, m: Layout, p: ndarray, own: ndarray, rows: ndarray) -> None:
    """Compute what one part of the hidden units adds to x. After a ReLU most of them are 0: these rows are not read."""
    F, hidden, sums = 4 * s.C // s.P, skip(own, m.hidden), skip(own, m.sums)
    multiply_packed(skip(own, m.normed), p[UP], s.kind, (s.C, F, s.C), None, hidden)
    _apply_affine(p[UP_AFFINE], F, hidden)
    activate(hidden[:F], s.activation)
    if s.activation == RELU and s.kind != NF4:
        count = 0
        for f in range(F):
            rows[count] = f
            count += hidden[f] != 0
        multiply_packed(hidden, p[DOWN], s.kind, (F, s.C, count), rows, sums)
    else:
        multiply_packed(hidden, p[DOWN], s.kind, (F, s.C, F), None, sums)


@njit_inner
def _apply_affine(affine: int, size: int, out: ndarray) -> None:
    """Multiply out (O,) by the first row of an affine (2, O) at this address, and add the second row."""
    scale, bias = array_at(affine, size), array_at(affine + 4 * size, size)
    for o in range(size):
        out[o] = out[o] * scale[o] + bias[o]


@njit_inner
def _add_sums(s: Shape, m: Layout, blocks: ndarray, scratch: ndarray, stage: int) -> None:
    """Add to x what the parts of a stage computed: the sum, multiplied by its scale and with its bias."""
    layer = stage // 2
    if layer == s.L:
        return
    affine = blocks[layer, 0, DOWN_AFFINE if stage % 2 else PROJ_AFFINE]
    total = skip(scratch, m.first_part + m.sums)
    for part in range(1, s.P):
        sums = skip(scratch, m.first_part + part * m.part_size + m.sums)
        for c in range(s.C):
            total[c] += sums[c]
    _apply_affine(affine, s.C, total)
    for c in range(s.C):
        scratch[c] += total[c]

"""The forward pass of `Modern` in loops compiled by Numba, to generate text on a CPU.

It computes the function of model/modern.py: compare the two files. PyTorch spends most of the time for a token outside
the arithmetic, in some hundred calls of a few microseconds each. numba_layers.py explains the shapes.
"""

import math

import numpy as np
from numpy import ndarray

from minigpt.kernels.numba_forward import BlockLayout, Layout, find_head, njit_nogil
from minigpt.kernels.numba_jit import njit_inner
from minigpt.kernels.numba_layers import Sizes, attend, attend_with_cache, linear, store_in_cache
from minigpt.kernels.numba_matmul import BIAS, BIAS_RELU
from minigpt.kernels.numba_vectors import skip
from minigpt.model.modern import EPSILON


@njit_inner
def _rms_norm(x: ndarray, R: int, C: int, out: ndarray) -> None:
    """Scale each row of x (R, C) to a length of sqrt(C)."""
    for r in range(R):
        row, result, total = skip(x, r * C), skip(out, r * C), np.float32(0)
        for c in range(C):
            total += row[c] * row[c]
        scale = np.float32(1) / np.float32(math.sqrt(total / np.float32(C) + np.float32(EPSILON)))
        for c in range(C):
            result[c] = row[c] * scale


@njit_inner
def _shift(x: ndarray, weight: ndarray, sizes: tuple[int, int, int], last_inputs: ndarray, out: ndarray) -> None:
    """Add to each row of x (R, C) a share of the row before it.

    Args:
        x: the rows.
        weight: the shares, (C,).
        sizes: R, C, and the number of rows of a text.
        last_inputs: the row before each text, (W, C). It becomes the last row of the text.
        out: receives the result.
    """
    R, C, T = sizes
    for r in range(R):
        row, result = skip(x, r * C), skip(out, r * C)
        before = skip(x, (r - 1) * C) if r % T else skip(last_inputs, r // T * C)
        for c in range(C):
            result[c] = row[c] + weight[c] * before[c]
        if r % T == T - 1:
            last = skip(last_inputs, r // T * C)
            for c in range(C):
                last[c] = row[c]


@njit_inner
def _normalize_and_rotate(x: ndarray, D: int, rotation: ndarray) -> None:
    """Scale a query or a key (D,) to a length of sqrt(D), and rotate its pairs by their angles.

    `rotation` has the cosines of D / 2 angles, and then the sines.
    """
    half, total = D // 2, np.float32(0)
    for d in range(D):
        total += x[d] * x[d]
    scale = np.float32(1) / np.float32(math.sqrt(total / np.float32(D) + np.float32(EPSILON)))
    for i in range(half):
        a, b, cos, sin = x[i] * scale, x[half + i] * scale, rotation[i], rotation[half + i]
        x[i], x[half + i] = a * cos - b * sin, a * sin + b * cos


@njit_nogil
def predict_modern(
    s: Sizes,
    m: Layout,
    o: BlockLayout,
    table: ndarray,
    shifts: ndarray,
    rotations: ndarray,
    zeros: ndarray,
    last_inputs: ndarray,
    idx: ndarray,
    cache: tuple[int, int, int, int],
    logits: ndarray,
    scratch: ndarray,
) -> None:
    """Read T tokens of each of W texts, and compute the logits (W, V) of the token that follows them.

    Args:
        s: the sizes.
        m: the layout of the scratch memory.
        o: the layout of a block's activations.
        table: the embeddings of the tokens, (V * C,).
        shifts: the weights of the token shifts, of the embedding and of each block, ((1 + L) * C,).
        rotations: the cosines and sines of each position, (capacity * D,).
        zeros: as many zeros as the widest matrix has outputs.
        last_inputs: the last inputs of the token shifts, ((1 + L) * W * C,). They are zeros at position 0, and get the
            new ones.
        idx: see `numba_forward.predict`, as for the other arguments.
        cache: see there.
        logits: see there.
        scratch: see there.
    """
    C, F, V, T, D, (position, keys, _, _) = s.C, s.F, s.V, s.T, s.C // s.H, cache
    a, texts, panel = skip(scratch, m.blocks), len(idx) // T, skip(scratch, m.panel)
    x, normed, shifted, hidden = skip(a, o.x), skip(a, o.normed1), skip(a, o.normed2), skip(a, o.hidden)
    qkv, attended, weights, result = skip(a, o.qkv), skip(a, o.attended), skip(a, o.weights), skip(a, o.middle)
    for first in range(0, len(idx), s.R):
        R = min(s.R, len(idx) - first)
        for r in range(R):
            token = skip(table, idx[first + r] * C)
            for c in range(C):
                normed[r * C + c] = token[c]
        own_inputs = skip(last_inputs, first // T * C)
        _shift(normed, shifts, (R, C, T), own_inputs, shifted)
        _rms_norm(shifted, R, C, x)
        for layer in range(s.L):
            matrices, place = skip(scratch, m.matrices + layer * 12 * C * C), (layer, texts, first // T)
            proj, up, down = skip(matrices, 3 * C * C), skip(matrices, 4 * C * C), skip(matrices, 8 * C * C)
            # communication
            _rms_norm(x, R, C, normed)
            linear(normed, matrices, zeros, (R, C, 3 * C), BIAS, qkv, panel)
            for n in range(R * s.H):
                rotation = skip(rotations, (position + n // s.H % T) * D)
                q = skip(qkv, n // s.H * 3 * C + n % s.H * D)
                _normalize_and_rotate(q, D, rotation)
                _normalize_and_rotate(skip(q, C), D, rotation)
                if keys:
                    own = find_head(n, s, place, cache)
                    store_in_cache(skip(q, C), skip(q, 2 * C), own, D)
                    if position > 0:
                        attend_with_cache(q, own, D, weights, skip(attended, n * D))
            if position == 0:
                attend(qkv, s, R // T, weights, 0, attended, panel)
            linear(attended, proj, zeros, (R, C, C), BIAS, result, panel)
            for i in range(R * C):
                x[i] += result[i]
            # computation
            _rms_norm(x, R, C, normed)
            own_inputs = skip(last_inputs, ((layer + 1) * texts + first // T) * C)
            _shift(normed, skip(shifts, (layer + 1) * C), (R, C, T), own_inputs, shifted)
            linear(shifted, up, zeros, (R, C, F), BIAS_RELU, hidden, panel)
            for i in range(R * F):
                hidden[i] *= hidden[i]
            linear(hidden, down, zeros, (R, F, C), BIAS, result, panel)
            for i in range(R * C):
                x[i] += result[i]
        for w in range(R // T):
            _rms_norm(skip(x, (w * T + T - 1) * C), 1, C, skip(normed, w * C))
        out = skip(logits, first // T * V)
        linear(normed, skip(scratch, m.head), zeros, (R // T, C, V), BIAS, out, panel)

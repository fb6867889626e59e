"""The forward pass of `Modern` in loops compiled by Numba, to generate text on a CPU.

It computes the function of model/modern.py: compare the two files. PyTorch spends most of the time for a token outside
the arithmetic, in some hundred calls of a few microseconds each. numba_layers.py explains the shapes.
"""

import math

import numpy as np
from numpy import ndarray

from minigpt.kernels.numba_forward import BlockLayout, Layout, attend_rows, keep_last_rows, njit_nogil
from minigpt.kernels.numba_jit import njit_inner
from minigpt.kernels.numba_layers import Sizes, linear
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


@njit_inner
def _compute_block(
    s: Sizes,
    o: BlockLayout,
    R: int,
    kept: int,
    place: tuple[int, int, int],
    cache: tuple[int, int, int, int],
    matrices: ndarray,
    shift: ndarray,
    rotations: ndarray,
    zeros: ndarray,
    last_inputs: ndarray,
    a: ndarray,
    panel: ndarray,
) -> None:
    """Compute a block for R rows. Its result replaces its input x.

    Args:
        s: the sizes.
        o: where the activations begin in `a`.
        R: the number of rows.
        kept: the number of rows of each text that the block's result has: the last ones.
        place: see `numba_forward.attend_rows`.
        cache: see `predict_modern`, as for `zeros`.
        matrices: the transposed matrices of the block, qkv, proj, up and down.
        shift: the weights of its token shift, (C,).
        rotations: the cosines and sines of each position from the first one on.
        zeros: see there.
        last_inputs: the last inputs of its token shift, (W, C).
        a: the activations; x is there already.
        panel: scratch memory of `multiply`.
    """
    C, F, T, D = s.C, s.F, s.T, s.C // s.H
    proj, up, down = skip(matrices, 3 * C * C), skip(matrices, 4 * C * C), skip(matrices, 8 * C * C)
    x, normed, shifted, hidden = skip(a, o.x), skip(a, o.normed1), skip(a, o.normed2), skip(a, o.hidden)
    qkv, result = skip(a, o.qkv), skip(a, o.middle)
    # communication
    _rms_norm(x, R, C, normed)
    linear(normed, matrices, zeros, (R, C, 3 * C), BIAS, qkv, panel)
    for n in range(R * s.H):
        rotation, q = skip(rotations, n // s.H % T * D), skip(qkv, n // s.H * 3 * C + n % s.H * D)
        _normalize_and_rotate(q, D, rotation)
        _normalize_and_rotate(skip(q, C), D, rotation)
    attend_rows(s, o, R, place, cache, a, panel)
    if kept < T:
        keep_last_rows(x, R // T, T, kept, C)
        keep_last_rows(skip(a, o.attended), R // T, T, kept, C)
        R = R // T * kept
    linear(skip(a, o.attended), proj, zeros, (R, C, C), BIAS, result, panel)
    for i in range(R * C):
        x[i] += result[i]
    # computation
    _rms_norm(x, R, C, normed)
    _shift(normed, shift, (R, C, kept), last_inputs, shifted)
    linear(shifted, up, zeros, (R, C, F), BIAS_RELU, hidden, panel)
    for i in range(R * F):
        hidden[i] *= hidden[i]
    linear(hidden, down, zeros, (R, F, C), BIAS, result, panel)
    for i in range(R * C):
        x[i] += result[i]


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
    C, V, T, D = s.C, s.V, s.T, s.C // s.H
    last = min(T, 2)  # the logits need the last row of the last block, whose token shift reads the row before
    a, texts, panel = skip(scratch, m.blocks), len(idx) // T, skip(scratch, m.panel)
    x, normed, shifted = skip(a, o.x), skip(a, o.normed1), skip(a, o.normed2)
    for first in range(0, len(idx), s.R):
        R = min(s.R, len(idx) - first)
        for r in range(R):
            token = skip(table, idx[first + r] * C)
            for c in range(C):
                normed[r * C + c] = token[c]
        _shift(normed, shifts, (R, C, T), skip(last_inputs, first // T * C), shifted)
        _rms_norm(shifted, R, C, x)
        for layer in range(s.L):
            _compute_block(
                s,
                o,
                R,
                last if layer == s.L - 1 else T,
                (layer, texts, first // T),
                cache,
                skip(scratch, m.matrices + layer * 12 * C * C),
                skip(shifts, (layer + 1) * C),
                skip(rotations, cache[0] * D),
                zeros,
                skip(last_inputs, ((layer + 1) * texts + first // T) * C),
                a,
                panel,
            )
        for w in range(R // T):
            _rms_norm(skip(x, ((w + 1) * last - 1) * C), 1, C, skip(normed, w * C))
        out = skip(logits, first // T * V)
        linear(normed, skip(scratch, m.head), zeros, (R // T, C, V), BIAS, out, panel)

"""Decoding past block_size with GPT in loops compiled by Numba, on a CPU: a whole window for each token.

With learned positions, a window that moves on by one token is a new window. Every position changes, and with it every
key and value, so nothing can be cached. For the small windows of small models PyTorch's sixty calls take far longer
than the arithmetic. Here they are one compiled function, which computes that of model/gpt.py for a batch of one and
returns the logits of the last position.

Two threads share the positions. They need only keys and values from each other, so they wait for each other once in
each block. A fast thread may write the keys of the next block while the other still reads those of this one, so there
are two sets of keys and values, used in turn.
"""

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy import ndarray

from minigpt.kernels.numba_jit import njit_allocating, njit_inner, njit_parallel
from minigpt.kernels.numba_ops import (
    ACTIVATIONS,
    activate,
    add,
    add_product,
    copy,
    empty_array,
    exp,
    find_largest,
    layer_norm,
)
from minigpt.kernels.numba_sampling import Sampling, sample_token
from minigpt.kernels.numba_weights import Weights, extract_weights
from minigpt.model.kv_cache import ContextWindow

PARTS = 2
LANES = 16  # float32 numbers in the widest vectors


class WindowDecoder:
    """Continues a full context window of one row, which moves on by one with every token."""

    def __init__(self, window: ContextWindow, token: int, sampling: Sampling) -> None:
        """Copy the tokens of the window; `token` comes after them and `sampling` says how to choose tokens."""
        assert window.idx is not None
        config = window.model.config
        self.weights = extract_weights(window.model, full=True)
        self.activation, self.sampling = ACTIVATIONS.index(config.activation), sampling
        self.scratch = create_window_scratch(self.weights, config.n_head)
        self.idx = np.array([*window.idx[0].tolist(), token][-config.block_size :])

    def decode(self, uniforms: ndarray) -> ndarray:
        """Return the next tokens (N,), one for each random number in [0, 1)."""
        return decode_window_tokens(self.weights, self.activation, self.scratch, self.idx, self.sampling, uniforms)


class WindowScratch(NamedTuple):
    """The activations of the T positions."""

    x: ndarray  # (T, C)
    normed: ndarray  # (T, C)
    qkv: ndarray  # (T, 3C)
    queries: ndarray  # (H, T, D)
    keys: ndarray  # (2, H, D, T), of even and of odd blocks
    values: ndarray  # (2, H, T, D)
    scores: ndarray  # (T, T)
    attended: ndarray  # (H, T, D)
    hidden: ndarray  # (T, F)
    logits: ndarray  # (V,)
    rows: ndarray  # (C,), scratch memory of `add_product`


def create_window_scratch(w: Weights, H: int) -> WindowScratch:
    """Allocate the activations of a window of a model with H heads."""
    (V, C), T, F = w.tokens.shape, len(w.positions), w.up.shape[3]
    D = C // H
    return WindowScratch(
        x=empty_array(T, C),
        normed=empty_array(T, C),
        qkv=empty_array(T, 3 * C),
        queries=empty_array(H, T, D),
        keys=empty_array(2, H, D, T),
        values=empty_array(2, H, T, D),
        scores=empty_array(T, T),
        attended=empty_array(H, T, D),
        hidden=empty_array(T, F),
        logits=empty_array(V),
        rows=np.empty(C, np.int64),
    )


@njit_allocating
def decode_window_tokens(
    w: Weights, activation: int, s: WindowScratch, idx: ndarray, sampling: Sampling, uniforms: ndarray
) -> ndarray:
    """Return the N tokens that follow a window idx (T,), one for each random number; the window moves on."""
    tokens = np.empty(len(uniforms), np.int64)
    for n in range(len(uniforms)):
        compute_window_logits(w, activation, s, idx)
        tokens[n] = sample_token(s.logits, sampling, uniforms[n])
        for t in range(len(idx) - 1):
            idx[t] = idx[t + 1]
        idx[-1] = tokens[n]
    return tokens


@njit_parallel
def compute_window_logits(w: Weights, activation: int, s: WindowScratch, idx: ndarray) -> None:
    """Write the logits after the window idx (T,) to the scratch memory."""
    T = len(idx)
    for stage in range(len(w.up) + 1):
        for part in prange(PARTS):  # unsigned: without the conversion, Numba compiles each function twice
            _run_part(w, activation, s, idx, stage, np.int64(part))
    layer_norm(s.x[T - 1], w.ln_f, s.normed[T - 1])
    copy(w.head_affine[0, 1], s.logits)
    add_product(s.normed[T - 1], w.head[0], s.logits, s.rows)


@njit_inner
def _run_part(w: Weights, activation: int, s: WindowScratch, idx: ndarray, stage: int, part: int) -> None:
    """Compute the keys and values of a block, and all before them, for one part of the positions.

    The stage after the last block finishes that block, for the last position only.
    """
    T, L = len(idx), len(w.up)
    first, last = T * part // PARTS, T * (part + 1) // PARTS
    if stage == 0:
        embed_window(w, s, idx, first, last)
    else:
        _finish_block(w, activation, s, stage - 1, first if stage < L else max(first, T - 1), last)
    if stage < L:
        _compute_qkv(w, s, stage, first, last)


@njit_inner
def embed_window(w: Weights, s: WindowScratch, idx: ndarray, first: int, last: int) -> None:
    """Add the embeddings of tokens and positions, for the positions from `first` to `last` - 1."""
    for t in range(first, last):
        copy(w.tokens[idx[t]], s.x[t])
        add(w.positions[t], s.x[t])


@njit_inner
def _compute_qkv(w: Weights, s: WindowScratch, layer: int, first: int, last: int) -> None:
    """Compute a block's queries, keys and values, for the positions from `first` to `last` - 1."""
    H, _, D = s.queries.shape
    C = H * D
    for t in range(first, last):
        layer_norm(s.x[t], w.ln1[layer], s.normed[t])
        copy(w.qkv_affine[layer, 0, 1], s.qkv[t])
    _add_products(s.normed, w.qkv[layer, 0], s.qkv, first, last, C, 3 * C)
    keys, values = s.keys[layer % 2], s.values[layer % 2]
    for t in range(first, last):
        for h in range(H):
            for d in range(D):
                s.queries[h, t, d] = s.qkv[t, 3 * D * h + d]
                keys[h, d, t] = s.qkv[t, 3 * D * h + D + d]
                values[h, t, d] = s.qkv[t, 3 * D * h + 2 * D + d]


@njit_inner
def _finish_block(w: Weights, activation: int, s: WindowScratch, layer: int, first: int, last: int) -> None:
    """Compute the rest of a block, attention and feed-forward, for the positions from `first` to `last` - 1."""
    H, _, D = s.queries.shape
    C, F = H * D, s.hidden.shape[1]
    for t in range(first, last):
        add(w.proj_affine[layer, 1], s.x[t])
    for h in range(H):
        attend_window(s.queries[h], s.keys[layer % 2, h], s.values[layer % 2, h], s.scores, s.attended[h], first, last)
        _add_products(s.attended[h], w.proj[layer, 0, D * h : D * (h + 1)], s.x, first, last, D, C)
    for t in range(first, last):
        layer_norm(s.x[t], w.ln2[layer], s.normed[t])
        copy(w.up_affine[layer, 0, 1], s.hidden[t])
        add(w.down_affine[layer, 1], s.x[t])
    _add_products(s.normed, w.up[layer, 0], s.hidden, first, last, C, F)
    for t in range(first, last):
        activate(s.hidden[t], activation)
    _add_products(s.hidden, w.down[layer, 0], s.x, first, last, F, C)


@njit_inner
def attend_window(
    queries: ndarray,  # (T, D)
    keys: ndarray,  # (D, T)
    values: ndarray,  # (T, D)
    scores: ndarray,  # (T, T)
    attended: ndarray,  # (T, D)
    first: int,
    last: int,
) -> None:
    """Attend with one head, for the positions from `first` to `last` - 1."""
    D = queries.shape[1]
    scale = np.float32(1) / np.float32(np.sqrt(D))
    for start in range(first, last, LANES):
        end = min(start + LANES, last)  # none of these positions sees later ones
        for t in range(start, end):
            attended[t, :] = 0
            scores[t, :end] = 0
        _add_products(queries, keys, scores, start, end, D, end)
        for t in range(start, end):
            highest, total = find_largest(scores[t, : t + 1]), np.float32(0)
            for i in range(end):  # whole vectors; later positions get weight 0
                share = exp(min((scores[t, i] - highest) * scale, np.float32(0))) if i <= t else np.float32(0)
                scores[t, i] = share
                total += share
            for i in range(end):
                scores[t, i] /= total
        _add_products(scores, values, attended, start, end, end, D)


@njit_inner
def _add_products(x: ndarray, matrix: ndarray, out: ndarray, first: int, last: int, inputs: int, outputs: int) -> None:
    """Add x @ matrix to out, for (T, I), (I, O) and (T, O), in the rows from `first` to `last` - 1.

    Eight rows of the matrix at a time stay in the processor's cache for all rows of x.
    """
    whole = inputs // 8 * 8
    for i in range(0, whole, 8):
        for t in range(first, last):
            a, b, c, d = x[t, i], x[t, i + 1], x[t, i + 2], x[t, i + 3]
            e, f, g, h = x[t, i + 4], x[t, i + 5], x[t, i + 6], x[t, i + 7]
            for o in range(outputs):
                out[t, o] += (
                    (a * matrix[i, o] + b * matrix[i + 1, o])
                    + (c * matrix[i + 2, o] + d * matrix[i + 3, o])
                    + (e * matrix[i + 4, o] + f * matrix[i + 5, o])
                    + (g * matrix[i + 6, o] + h * matrix[i + 7, o])
                )
    for i in range(whole, inputs):
        for t in range(first, last):
            for o in range(outputs):
                out[t, o] += x[t, i] * matrix[i, o]

"""A whole window through a GPT in plain loops, compiled by Numba: how text goes on past block_size on a CPU.

With learned positions a window that moves on by a token is a new window: every position changes, and with it
every key and value, so nothing can be kept and all of it is computed again. For the small windows of small models
PyTorch's sixty calls take far longer than the arithmetic; here that is one compiled function. It is model/gpt.py's
function for a batch of one, of which only the last position's logits are wanted.

The positions are shared out between two threads. They need nothing from each other but keys and values, so they wait
for one another once a block; and as the keys of the next block are made while another thread may still read those
of this one, there are two sets, used in turn.
"""

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy import ndarray

from minigpt.generation.cached import CachedReader
from minigpt.kernels.numba_ops import (
    Choice,
    Weights,
    activate,
    add,
    add_product,
    allocating,
    choose,
    compiled,
    copy,
    empty,
    exp,
    largest,
    layer_norm,
    shared_out,
    weights_of,
)

PARTS = 2
LANES = 16  # float32 numbers in the widest vectors there are


class WindowDecoder:
    """Writes on where a reader of one row has come to, its window full and moving on with every token."""

    def __init__(self, reader: CachedReader, token: int, choice: Choice) -> None:
        """`token` has been chosen after what the reader has read."""
        assert reader.idx is not None
        config = reader.model.config
        self.weights, self.relu, self.choice = weights_of(reader.model, full=True), config.activation == "relu", choice
        self.scratch = scratch(self.weights, config.n_head)
        self.idx = np.array([*reader.idx[0].tolist(), token][-config.block_size :])

    def write(self, uniforms: ndarray) -> ndarray:
        """The next tokens (N,), one for each random number in [0, 1)."""
        return write(self.weights, self.relu, self.scratch, self.idx, self.choice, uniforms)


class Scratch(NamedTuple):
    """What the T positions become on their way."""

    x: ndarray  # (T, C)
    normed: ndarray  # (T, C)
    qkv: ndarray  # (T, 3C)
    queries: ndarray  # (H, T, D)
    keys: ndarray  # (2, H, D, T), of even and of odd blocks
    values: ndarray  # (2, H, T, D)
    scores: ndarray  # (T, T)
    gathered: ndarray  # (H, T, D)
    hidden: ndarray  # (T, F)
    logits: ndarray  # (V,)
    rows: ndarray  # (C,), room for `add_product`


def scratch(w: Weights, H: int) -> Scratch:
    """Room for a window of a model with H heads."""
    (V, C), T, F = w.tokens.shape, len(w.positions), w.up.shape[3]
    D = C // H
    return Scratch(
        x=empty(T, C),
        normed=empty(T, C),
        qkv=empty(T, 3 * C),
        queries=empty(H, T, D),
        keys=empty(2, H, D, T),
        values=empty(2, H, T, D),
        scores=empty(T, T),
        gathered=empty(H, T, D),
        hidden=empty(T, F),
        logits=empty(V),
        rows=np.empty(C, np.int64),
    )


@allocating
def write(w: Weights, relu: bool, s: Scratch, idx: ndarray, choice: Choice, uniforms: ndarray) -> ndarray:
    """The N tokens (N,) that follow a window idx (T,), which moves on with them; a random number for each."""
    written = np.empty(len(uniforms), np.int64)
    for n in range(len(uniforms)):
        read(w, relu, s, idx)
        written[n] = choose(s.logits, choice, uniforms[n])
        for t in range(len(idx) - 1):
            idx[t] = idx[t + 1]
        idx[-1] = written[n]
    return written


@shared_out
def read(w: Weights, relu: bool, s: Scratch, idx: ndarray) -> None:
    """The logits after the window idx (T,), into the scratch."""
    T, L = len(idx), len(w.up)
    for layer in range(L):
        for part in prange(PARTS):
            work(w, relu, s, idx, layer, T * part // PARTS, T * (part + 1) // PARTS)
    answer(w, relu, s, L - 1, T - 1, T)  # in the last block only the last position matters
    layer_norm(s.x[T - 1], w.ln_f, s.normed[T - 1])
    copy(w.head_affine[0, 1], s.logits)
    add_product(s.normed[T - 1], w.head[0], s.logits, s.rows)


@compiled
def work(w: Weights, relu: bool, s: Scratch, idx: ndarray, layer: int, first: int, last: int) -> None:
    """What leads up to a block's keys and values, for the positions from `first` to before `last`."""
    if layer == 0:
        embed(w, s, idx, first, last)
    else:
        answer(w, relu, s, layer - 1, first, last)
    ask(w, s, layer, first, last)


@compiled
def embed(w: Weights, s: Scratch, idx: ndarray, first: int, last: int) -> None:
    """What the tokens are and where they stand, for the positions from `first` to before `last`."""
    for t in range(first, last):
        copy(w.tokens[idx[t]], s.x[t])
        add(w.positions[t], s.x[t])


@compiled
def ask(w: Weights, s: Scratch, layer: int, first: int, last: int) -> None:
    """A block up to its queries, keys and values, for the positions from `first` to before `last`."""
    H, _, D = s.queries.shape
    C = H * D
    for t in range(first, last):
        layer_norm(s.x[t], w.ln1[layer], s.normed[t])
        copy(w.qkv_affine[layer, 0, 1], s.qkv[t])
    add_products(s.normed, w.qkv[layer, 0], s.qkv, first, last, C, 3 * C)
    keys, values = s.keys[layer % 2], s.values[layer % 2]
    for t in range(first, last):
        for h in range(H):
            for d in range(D):
                s.queries[h, t, d] = s.qkv[t, 3 * D * h + d]
                keys[h, d, t] = s.qkv[t, 3 * D * h + D + d]
                values[h, t, d] = s.qkv[t, 3 * D * h + 2 * D + d]


@compiled
def answer(w: Weights, relu: bool, s: Scratch, layer: int, first: int, last: int) -> None:
    """The rest of the block: what the heads gather, and feed-forward."""
    H, _, D = s.queries.shape
    C, F = H * D, s.hidden.shape[1]
    for t in range(first, last):
        add(w.proj_affine[layer, 1], s.x[t])
    for h in range(H):
        attend(s.queries[h], s.keys[layer % 2, h], s.values[layer % 2, h], s.scores, s.gathered[h], first, last)
        add_products(s.gathered[h], w.proj[layer, 0, D * h : D * (h + 1)], s.x, first, last, D, C)
    for t in range(first, last):
        layer_norm(s.x[t], w.ln2[layer], s.normed[t])
        copy(w.up_affine[layer, 0, 1], s.hidden[t])
        add(w.down_affine[layer, 1], s.x[t])
    add_products(s.normed, w.up[layer, 0], s.hidden, first, last, C, F)
    for t in range(first, last):
        activate(s.hidden[t], relu)
    add_products(s.hidden, w.down[layer, 0], s.x, first, last, F, C)


@compiled
def attend(
    queries: ndarray,  # (T, D)
    keys: ndarray,  # (D, T)
    values: ndarray,  # (T, D)
    scores: ndarray,  # (T, T)
    gathered: ndarray,  # (T, D)
    first: int,
    last: int,
) -> None:
    """What a head gathers for the positions from `first` to before `last`."""
    D = queries.shape[1]
    scale = np.float32(1) / np.float32(np.sqrt(D))
    for start in range(first, last, LANES):
        end = min(start + LANES, last)  # no position of these sees further
        for t in range(start, end):
            gathered[t, :] = 0
            scores[t, :end] = 0
        add_products(queries, keys, scores, start, end, D, end)
        for t in range(start, end):
            highest, total = largest(scores[t, : t + 1]), np.float32(0)
            for i in range(end):  # whole vectors: what lies ahead is computed too, and left out
                share = exp(min((scores[t, i] - highest) * scale, np.float32(0))) if i <= t else np.float32(0)
                scores[t, i] = share
                total += share
            for i in range(end):
                scores[t, i] /= total
        add_products(scores, values, gathered, start, end, end, D)


@compiled
def add_products(x: ndarray, matrix: ndarray, out: ndarray, first: int, last: int, inputs: int, outputs: int) -> None:
    """Add x @ matrix to out, (T, I), (I, O) and (T, O), in the rows from `first` to before `last`.

    Eight rows of the matrix at a time, which stay in the cache for all rows of x.
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

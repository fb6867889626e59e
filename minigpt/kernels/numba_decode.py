"""One token after another through a GPT in plain loops, compiled by Numba: how text is written on a CPU.

For a single token PyTorch spends its time on the way to the arithmetic: some sixty calls of a few
microseconds each, around a network that takes a core ten. Here the whole step is one compiled function, the
choice of the next token included, and it works on a batch of one. It is model/gpt.py's function, written
out: read the two side by side. Keys and values lie (D, T) in the cache, so that vectors run along the positions.

A block is shared out as Megatron-LM does (Shoeybi et al. 2019): each part takes half of the heads and half of the
hidden units, from its columns of the first matrix to its rows of the second, and the two halves meet in a sum.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import prange
from numpy import ndarray

from minigpt.generation.cached import CachedReader
from minigpt.kernels.numba_ops import (
    Choice,
    Weights,
    activate,
    add_product,
    allocating,
    choose,
    compiled,
    empty,
    exp,
    largest,
    layer_norm,
    shared_out,
    weights_of,
)


class Decoder:
    """Writes on where a reader of one row has come to, until its window is full and not beyond."""

    def __init__(self, reader: CachedReader, token: int, choice: Choice, parts: int) -> None:
        """`token` has been chosen after what the reader has read; layers are cut into so many parts."""
        model = reader.model
        self.weights = weights_of(model, parts)
        self.scratch, self.choice = scratch(self.weights), choice
        self.relu = model.config.activation == "relu"
        self.keys, self.values = (
            torch.stack(layers)[:, 0].mT.contiguous().numpy() for layers in zip(*reader.cache.kv, strict=True)
        )
        self.token, self.position = token, reader.cache.length

    def write(self, uniforms: ndarray) -> ndarray:
        """The next tokens (N,), one for each random number in [0, 1)."""
        state = self.weights, self.relu, self.keys, self.values, self.scratch
        if len(self.scratch.sums) == 1:
            written = write(*state, self.token, self.position, self.choice, uniforms)
        else:
            written, token = np.empty(len(uniforms), np.int64), self.token
            logits = self.scratch.logits.reshape(-1)[: len(self.weights.tokens)]
            for n, uniform in enumerate(uniforms.tolist()):
                step_in_parts(*state, token, self.position + n)
                written[n] = token = choose(logits, self.choice, uniform)
        self.token, self.position = int(written[-1]), self.position + len(written)
        return written


class Scratch(NamedTuple):
    """What a token becomes on its way, a row for each of the P parts; x is for all of them."""

    x: ndarray  # (C,)
    normed: ndarray  # (P, C)
    qkv: ndarray  # (P, 3C / P)
    scores: ndarray  # (P, T)
    gathered: ndarray  # (P, C / P)
    hidden: ndarray  # (P, F / P)
    sums: ndarray  # (P, C)
    logits: ndarray  # (P, V / P)
    rows: ndarray  # (P, F), those of a matrix that count


def scratch(w: Weights) -> Scratch:
    """Room for a token of this model."""
    P, C, width = w.head.shape
    T, F = len(w.positions), P * w.up.shape[3]
    return Scratch(
        x=empty(C),
        normed=empty(P, C),
        qkv=empty(P, 3 * C // P),
        scores=empty(P, T),
        gathered=empty(P, C // P),
        hidden=empty(P, F // P),
        sums=empty(P, C),
        logits=empty(P, width),
        rows=np.empty((P, F), np.int64),
    )


@allocating
def write(
    w: Weights,
    relu: bool,
    keys: ndarray,  # (L, H, D, T)
    values: ndarray,  # (L, H, D, T)
    s: Scratch,
    token: int,  # not yet in the cache
    position: int,
    choice: Choice,
    uniforms: ndarray,  # (N,), a random number in [0, 1) for each token to write
) -> ndarray:
    """The N tokens (N,) that follow a token at a position; the last of them is not in the cache afterwards."""
    written = np.empty(len(uniforms), np.int64)
    logits = s.logits.reshape(-1)[: len(w.tokens)]
    for n in range(len(uniforms)):
        step(w, relu, keys, values, s, token, position + n)
        token = choose(logits, choice, uniforms[n])
        written[n] = token
    return written


@compiled
def step(w: Weights, relu: bool, keys: ndarray, values: ndarray, s: Scratch, token: int, position: int) -> None:
    """A token at a position into the cache, and out of it the logits of the next, into the scratch."""
    embed(w, s, token, position)
    for layer in range(len(w.up)):
        attention(w, keys, values, s, layer, position, 0)
        add_sums(s, w.proj_affine[layer])
        feed_forward(w, relu, s, layer, 0)
        add_sums(s, w.down_affine[layer])
    head(w, s, 0)


@shared_out
def step_in_parts(
    w: Weights, relu: bool, keys: ndarray, values: ndarray, s: Scratch, token: int, position: int
) -> None:
    """The same, each layer in parts."""
    embed(w, s, token, position)
    for stage in range(2 * len(w.up) + 1):
        for part in prange(len(s.sums)):
            work(w, relu, keys, values, s, stage, position, part)
        if stage < 2 * len(w.up):
            affines = w.down_affine if stage % 2 else w.proj_affine
            add_sums(s, affines[stage // 2])


@compiled
def work(
    w: Weights, relu: bool, keys: ndarray, values: ndarray, s: Scratch, stage: int, position: int, part: int
) -> None:
    """A part of what is to be done at once."""
    layer = stage // 2
    if layer == len(w.up):
        head(w, s, part)
    elif stage % 2:
        feed_forward(w, relu, s, layer, part)
    else:
        attention(w, keys, values, s, layer, position, part)


@compiled
def embed(w: Weights, s: Scratch, token: int, position: int) -> None:
    """What the token is and where it stands."""
    for c in range(len(s.x)):
        s.x[c] = w.tokens[token, c] + w.positions[position, c]


@compiled
def attention(w: Weights, keys: ndarray, values: ndarray, s: Scratch, layer: int, position: int, part: int) -> None:
    """A part of the heads: their keys and values into the cache, and what they add to x."""
    _, H, D, _ = keys.shape
    heads = H // len(s.sums)
    qkv, gathered = s.qkv[part], s.gathered[part]
    layer_norm(s.x, w.ln1[layer], s.normed[part])
    multiply(s.normed[part], w.qkv[layer, part], w.qkv_affine[layer, part], qkv, s.rows[part])
    for n in range(heads):
        h, own = part * heads + n, qkv[3 * D * n : 3 * D * (n + 1)]
        for d in range(D):
            keys[layer, h, d, position] = own[D + d]
            values[layer, h, d, position] = own[2 * D + d]
        found = gathered[D * n : D * (n + 1)]
        attend(own[:D], keys[layer, h], values[layer, h], s.scores[part, : position + 1], found, s.rows[part])
    s.sums[part, :] = 0
    add_product(gathered, w.proj[layer, part], s.sums[part], s.rows[part])


@compiled
def feed_forward(w: Weights, relu: bool, s: Scratch, layer: int, part: int) -> None:
    """A part of the hidden units: what they add to x."""
    layer_norm(s.x, w.ln2[layer], s.normed[part])
    multiply(s.normed[part], w.up[layer, part], w.up_affine[layer, part], s.hidden[part], s.rows[part])
    activate(s.hidden[part], relu)
    s.sums[part, :] = 0
    add_product(s.hidden[part], w.down[layer, part], s.sums[part], s.rows[part])


@compiled
def head(w: Weights, s: Scratch, part: int) -> None:
    """A part of the logits."""
    layer_norm(s.x, w.ln_f, s.normed[part])
    multiply(s.normed[part], w.head[part], w.head_affine[part], s.logits[part], s.rows[part])


@compiled
def multiply(x: ndarray, matrix: ndarray, affine: ndarray, out: ndarray, rows: ndarray) -> None:
    """Product x @ matrix, times its scale and plus its bias, into out."""
    out[:] = 0
    add_product(x, matrix, out, rows)
    for o in range(len(out)):
        out[o] = out[o] * affine[0, o] + affine[1, o]


@compiled
def add_sums(s: Scratch, affine: ndarray) -> None:
    """To x what the parts have found together, times its scale and plus its bias."""
    for c in range(len(s.x)):
        total = s.sums[0, c]
        for part in range(1, len(s.sums)):
            total += s.sums[part, c]
        s.x[c] += total * affine[0, c] + affine[1, c]


@compiled
def attend(q: ndarray, keys: ndarray, values: ndarray, scores: ndarray, out: ndarray, rows: ndarray) -> None:
    """What a head gathers for its query (D,) from the first len(scores) positions of keys and values (D, T)."""
    D, T = len(q), len(scores)
    scale = np.float32(1) / np.float32(np.sqrt(D))
    scores[:] = 0
    add_product(q, keys, scores, rows)
    highest, total = largest(scores), np.float32(0)
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

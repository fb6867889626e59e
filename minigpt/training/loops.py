"""Loss and gradients of a small GPT in plain loops, compiled by Numba: a training step without PyTorch's overhead.

At the lecture's size a step of PyTorch's is some two hundred calls of a few microseconds each, around matrix products
that take less. Here it is one compiled function, forward and backward, written out from the first line to the last:
the lecture's function in float32, with ReLU and without dropout. The tests hold it against autograd.

The windows of a batch are shared out between two threads, which need nothing from each other: each adds up gradients of
its own, and in the end both are added, in the same order whatever the number of threads. N is B * T, the rows of all
windows one below the other; d_y is the gradient of y.
"""

from typing import NamedTuple

import numba
import numpy as np
import torch
from numba import prange
from numpy import ndarray
from torch import Tensor, nn

from minigpt.model.gpt import GPT
from minigpt.sampling.loops import (
    DEEPEST,
    LANES,
    WIDEST,
    activate,
    add,
    add_products,
    attend,
    compiled,
    copy,
    empty,
    exp,
    inlined,
    largest,
    shared_out,
)

PARTS = 2


class Places(NamedTuple):
    """Where each parameter begins in the long arrays that `flatten` makes; L entries for what each block has."""

    tokens: int  # matrices
    positions: int
    qkv: ndarray
    proj: ndarray
    up: ndarray
    down: ndarray
    head: int  # the tokens' place, if the head is tied to them
    norm1: ndarray  # vectors: a gain, then a bias
    qkv_bias: ndarray  # -1 if there is none
    proj_bias: ndarray
    norm2: ndarray
    up_bias: ndarray
    down_bias: ndarray
    norm_f: int
    head_bias: int  # -1 if there is none


class Shape(NamedTuple):
    """The sizes of the model and the batch."""

    B: int
    T: int
    C: int
    H: int
    L: int
    V: int


class Kept(NamedTuple):
    """What forward leaves for backward, and room for both. `parts` of it are each thread's own."""

    x: ndarray  # (2L + 1, N, C), before each layer norm
    moments: ndarray  # (2L + 1, N, 2), its mean and 1 / standard deviation
    normed: ndarray  # (2L + 1, N, C), after it
    qkv: ndarray  # (L, N, 3C)
    weights: ndarray  # (L, H, N, T)
    gathered: ndarray  # (L, N, C)
    hidden: ndarray  # (L, N, F)
    logits: ndarray  # (N, V), and their gradients
    d_x: ndarray  # (N, C)
    d_normed: ndarray  # (N, C)
    d_qkv: ndarray  # (N, 3C)
    d_hidden: ndarray  # (N, F)
    heads: ndarray  # (parts, 8, T * D), of one head in one window
    scores: ndarray  # (parts, T, T)
    panels: ndarray  # (parts, …), room for `add_products`
    turned: ndarray  # as long as the matrices, each of them transposed
    d_matrices: ndarray  # (parts, as long as the matrices), those of qkv and up transposed
    d_vectors: ndarray  # (parts, as long as the vectors)
    losses: ndarray  # (parts,), float64


class CompiledStep:
    """The loss of a batch, and its gradients added to a model's, by compiled loops."""

    def __init__(self, model: GPT, parameters: list[nn.Parameter], batch_size: int) -> None:
        """`parameters` are what `flatten` made of the model's."""
        config = model.config
        self.matrices, self.vectors = (p.detach().numpy() for p in parameters)
        self.d_matrices, self.d_vectors = (gradient_of(p).numpy() for p in parameters)
        self.shape = Shape(
            batch_size, config.block_size, config.n_embd, config.n_head, config.n_layer, config.vocab_size
        )
        self.places = places_of(model, parameters)
        self.kept = room_for(self.shape, len(self.matrices), len(self.vectors))

    def add(self, x: Tensor, y: Tensor, share: float = 1.0) -> float:
        """The mean loss of predicting y from x, both (B, T); that share of its gradients is added to the model's."""
        numba.set_num_threads(min(torch.get_num_threads(), vars(numba.config)["NUMBA_NUM_THREADS"]))
        idx, targets = x.flatten().numpy(), y.flatten().numpy()
        run(self.places, self.shape, self.kept, self.matrices, self.vectors, idx, targets, np.float32(share))
        collect(self.places, self.shape, self.kept, self.d_matrices, self.d_vectors)
        return float(self.kept.losses.sum() / len(idx))


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """Its gradient, which `flatten` has made."""
    assert parameter.grad is not None
    return parameter.grad


def places_of(model: GPT, parameters: list[nn.Parameter]) -> Places:
    """Where the model's parameters lie in the long ones."""
    starts = [p.data_ptr() for p in parameters]
    stops = [p.data_ptr() + 4 * p.numel() for p in parameters]

    def place(parameter: Tensor | None) -> int:
        if parameter is None:
            return -1
        at = parameter.data_ptr()
        return next((at - start) // 4 for start, stop in zip(starts, stops, strict=True) if start <= at < stop)

    def each(path: str) -> ndarray:
        found = [dict(block.named_parameters()).get(path) for block in model.blocks]
        return np.array([place(parameter) for parameter in found])

    head = model.lm_head
    return Places(
        tokens=place(model.token_embedding_table.weight),
        positions=place(model.position_embedding_table.weight),
        qkv=each("attention.qkv.weight"),
        proj=each("attention.proj.weight"),
        up=each("ffwd.up.weight"),
        down=each("ffwd.down.weight"),
        head=place(model.token_embedding_table.weight if head is None else head.weight),
        norm1=np.stack([each("ln1.weight"), each("ln1.bias")], axis=1),
        qkv_bias=each("attention.qkv.bias"),
        proj_bias=each("attention.proj.bias"),
        norm2=np.stack([each("ln2.weight"), each("ln2.bias")], axis=1),
        up_bias=each("ffwd.up.bias"),
        down_bias=each("ffwd.down.bias"),
        norm_f=np.array([place(model.ln_f.weight), place(model.ln_f.bias)]),
        head_bias=place(None if head is None else head.bias),
    )


def room_for(shape: Shape, matrices: int, vectors: int) -> Kept:
    """Memory for a batch."""
    B, T, C, H, L, V = shape
    N, F, D = B * T, 4 * C, C // H
    return Kept(
        x=empty(2 * L + 1, N, C),
        moments=empty(2 * L + 1, N, 2),
        normed=empty(2 * L + 1, N, C),
        qkv=empty(L, N, 3 * C),
        weights=empty(L, H, N, T),
        gathered=empty(L, N, C),
        hidden=empty(L, N, F),
        logits=empty(N, V),
        d_x=empty(N, C),
        d_normed=empty(N, C),
        d_qkv=empty(N, 3 * C),
        d_hidden=empty(N, F),
        heads=empty(PARTS, 8, T * D),
        scores=empty(PARTS, T, T),
        panels=empty(PARTS, DEEPEST * WIDEST),
        turned=empty(matrices),
        d_matrices=empty(PARTS, matrices),
        d_vectors=empty(PARTS, vectors),
        losses=np.empty(PARTS),
    )


@shared_out
def run(
    p: Places,
    shape: Shape,
    s: Kept,
    matrices: ndarray,
    vectors: ndarray,
    idx: ndarray,  # (N,)
    targets: ndarray,  # (N,)
    share: np.float32,
) -> None:
    """Forward and backward; the gradients are in the parts of `d_matrices` and `d_vectors` then."""
    for part in prange(PARTS):
        turn(p, shape, s, matrices, part)
    for part in prange(PARTS):
        work(p, shape, s, matrices, vectors, idx, targets, share, part)


@compiled
def turn(p: Places, shape: Shape, s: Kept, matrices: ndarray, part: int) -> None:
    """Transpose the matrices of every second block, and for the first part the head."""
    C, F = shape.C, 4 * shape.C
    for layer in range(part, shape.L, PARTS):
        transpose(matrices, s.turned, p.qkv[layer], 3 * C, C)
        transpose(matrices, s.turned, p.proj[layer], C, C)
        transpose(matrices, s.turned, p.up[layer], F, C)
        transpose(matrices, s.turned, p.down[layer], C, F)
    if part == 0:
        transpose(matrices, s.turned, p.head, shape.V, C)


@compiled
def transpose(matrices: ndarray, turned: ndarray, at: int, outputs: int, inputs: int) -> None:
    """The matrix (outputs, inputs) at that place, transposed into the same place of `turned`."""
    source, target = block(matrices, at, outputs, inputs), block(turned, at, inputs, outputs)
    for i in range(inputs):
        for o in range(outputs):
            target[i, o] = source[o, i]


@inlined
def block(flat: ndarray, at: int, rows: int, columns: int) -> ndarray:
    """The matrix (rows, columns) that begins at that place of a long array."""
    return flat[at : at + rows * columns].reshape(rows, columns)


@compiled
def work(
    p: Places,
    shape: Shape,
    s: Kept,
    matrices: ndarray,
    vectors: ndarray,
    idx: ndarray,
    targets: ndarray,
    share: np.float32,
    part: int,
) -> None:
    """Forward and backward for a part of the windows."""
    B, T, C, _, L, V = shape
    first, last = T * (B * part // PARTS), T * (B * (part + 1) // PARTS)
    d_matrices, d_vectors, panel = s.d_matrices[part], s.d_vectors[part], s.panels[part]
    d_matrices[:] = 0
    d_vectors[:] = 0
    tokens, positions = block(matrices, p.tokens, V, C), block(matrices, p.positions, T, C)
    for t in range(first, last):
        copy(tokens[idx[t]], s.x[0, t])
        add(positions[t % T], s.x[0, t])
    for layer in range(L):
        communicate(p, shape, s, vectors, layer, part, first, last)
        compute(p, shape, s, vectors, layer, part, first, last)
    normalise(s, vectors, p.norm_f, 2 * L, first, last)
    fill(s.logits, vectors, p.head_bias, first, last)
    add_products(s.normed[2 * L], block(s.turned, p.head, C, V), s.logits, first, last, C, V, panel)
    s.losses[part] = cross_entropy(s.logits, targets, share / np.float32(B * T), first, last)
    # backward, from the last line to the first
    s.d_normed[first:last] = 0
    add_products(s.logits, block(matrices, p.head, V, C), s.d_normed, first, last, V, C, panel)
    rows = last - first
    d_head = block(d_matrices, p.head, V, C)
    add_products(s.logits[first:last].T, s.normed[2 * L, first:last], d_head, 0, V, rows, C, panel)
    add_rows(s.logits, d_vectors, p.head_bias, first, last)
    s.d_x[first:last] = 0
    normalise_backward(s, vectors, d_vectors, p.norm_f, 2 * L, first, last)
    for layer in range(L - 1, -1, -1):
        compute_backward(p, shape, s, matrices, vectors, d_matrices, d_vectors, layer, part, first, last)
        communicate_backward(p, shape, s, matrices, vectors, d_matrices, d_vectors, layer, part, first, last)
    d_tokens, d_positions = block(d_matrices, p.tokens, V, C), block(d_matrices, p.positions, T, C)
    for t in range(first, last):
        add(s.d_x[t], d_tokens[idx[t]])
        add(s.d_x[t], d_positions[t % T])


@compiled
def communicate(
    p: Places, shape: Shape, s: Kept, vectors: ndarray, layer: int, part: int, first: int, last: int
) -> None:
    """Self-attention, added to what is there."""
    _, T, C, H, _, _ = shape
    D, panel = C // H, s.panels[part]
    qkv, gathered, out = s.qkv[layer], s.gathered[layer], s.x[2 * layer + 1]
    normalise(s, vectors, p.norm1[layer], 2 * layer, first, last)
    fill(qkv, vectors, p.qkv_bias[layer], first, last)
    add_products(s.normed[2 * layer], block(s.turned, p.qkv[layer], C, 3 * C), qkv, first, last, C, 3 * C, panel)
    queries, keys = s.heads[part, 0].reshape(T, D), s.heads[part, 1].reshape(D, T)
    values, found = s.heads[part, 2].reshape(T, D), s.heads[part, 3].reshape(T, D)
    for start in range(first, last, T):
        for h in range(H):
            for t in range(T):
                for d in range(D):
                    queries[t, d] = qkv[start + t, D * h + d]
                    keys[d, t] = qkv[start + t, C + D * h + d]
                    values[t, d] = qkv[start + t, 2 * C + D * h + d]
            attend(queries, keys, values, s.weights[layer, h, start : start + T], found, 0, T, panel)
            for t in range(T):
                copy(found[t], gathered[start + t, D * h : D * (h + 1)])
    fill(out, vectors, p.proj_bias[layer], first, last)
    add_products(gathered, block(s.turned, p.proj[layer], C, C), out, first, last, C, C, panel)
    for t in range(first, last):
        add(s.x[2 * layer, t], out[t])


@compiled
def compute(p: Places, shape: Shape, s: Kept, vectors: ndarray, layer: int, part: int, first: int, last: int) -> None:
    """Feed-forward, added to what is there."""
    C, F, panel = shape.C, 4 * shape.C, s.panels[part]
    hidden, out, normed = s.hidden[layer], s.x[2 * layer + 2], s.normed[2 * layer + 1]
    normalise(s, vectors, p.norm2[layer], 2 * layer + 1, first, last)
    fill(hidden, vectors, p.up_bias[layer], first, last)
    add_products(normed, block(s.turned, p.up[layer], C, F), hidden, first, last, C, F, panel)
    for t in range(first, last):
        activate(hidden[t], True)
    fill(out, vectors, p.down_bias[layer], first, last)
    add_products(hidden, block(s.turned, p.down[layer], F, C), out, first, last, F, C, panel)
    for t in range(first, last):
        add(s.x[2 * layer + 1, t], out[t])


@compiled
def compute_backward(
    p: Places,
    shape: Shape,
    s: Kept,
    matrices: ndarray,
    vectors: ndarray,
    d_matrices: ndarray,
    d_vectors: ndarray,
    layer: int,
    part: int,
    first: int,
    last: int,
) -> None:
    """What `compute` does, backwards: d_x is first the gradient of its result, then that of its input."""
    C, F, panel, rows = shape.C, 4 * shape.C, s.panels[part], last - first
    hidden, normed = s.hidden[layer], s.normed[2 * layer + 1]
    d_down, d_up = block(d_matrices, p.down[layer], C, F), block(d_matrices, p.up[layer], C, F)
    s.d_hidden[first:last] = 0
    add_products(s.d_x, block(matrices, p.down[layer], C, F), s.d_hidden, first, last, C, F, panel)
    add_products(s.d_x[first:last].T, hidden[first:last], d_down, 0, C, rows, F, panel)
    add_rows(s.d_x, d_vectors, p.down_bias[layer], first, last)
    for t in range(first, last):
        pass_on(hidden[t], s.d_hidden[t])
    s.d_normed[first:last] = 0
    add_products(s.d_hidden, block(matrices, p.up[layer], F, C), s.d_normed, first, last, F, C, panel)
    add_products(normed[first:last].T, s.d_hidden[first:last], d_up, 0, C, rows, F, panel)
    add_rows(s.d_hidden, d_vectors, p.up_bias[layer], first, last)
    normalise_backward(s, vectors, d_vectors, p.norm2[layer], 2 * layer + 1, first, last)


@compiled
def pass_on(hidden: ndarray, d_hidden: ndarray) -> None:
    """No gradient where the ReLU gave 0."""
    for f in range(len(hidden)):
        d_hidden[f] = d_hidden[f] if hidden[f] > 0 else np.float32(0)


@compiled
def communicate_backward(
    p: Places,
    shape: Shape,
    s: Kept,
    matrices: ndarray,
    vectors: ndarray,
    d_matrices: ndarray,
    d_vectors: ndarray,
    layer: int,
    part: int,
    first: int,
    last: int,
) -> None:
    """What `communicate` does, backwards: d_x is first the gradient of its result, then that of its input."""
    _, T, C, H, _, _ = shape
    D, panel, rows = C // H, s.panels[part], last - first
    gathered, normed, d_gathered, d_qkv = s.gathered[layer], s.normed[2 * layer], s.d_normed, s.d_qkv
    d_proj, d_w_qkv = block(d_matrices, p.proj[layer], C, C), block(d_matrices, p.qkv[layer], C, 3 * C)
    d_gathered[first:last] = 0
    add_products(s.d_x, block(matrices, p.proj[layer], C, C), d_gathered, first, last, C, C, panel)
    add_products(s.d_x[first:last].T, gathered[first:last], d_proj, 0, C, rows, C, panel)
    add_rows(s.d_x, d_vectors, p.proj_bias[layer], first, last)
    for start in range(first, last, T):
        for h in range(H):
            one_head_backward(s.qkv[layer], s.weights[layer, h], d_gathered, d_qkv, s, h, D, start, T, part)
    s.d_normed[first:last] = 0
    add_products(d_qkv, block(matrices, p.qkv[layer], 3 * C, C), s.d_normed, first, last, 3 * C, C, panel)
    add_products(normed[first:last].T, d_qkv[first:last], d_w_qkv, 0, C, rows, 3 * C, panel)
    add_rows(d_qkv, d_vectors, p.qkv_bias[layer], first, last)
    normalise_backward(s, vectors, d_vectors, p.norm1[layer], 2 * layer, first, last)


@compiled
def one_head_backward(
    qkv: ndarray,  # (N, 3C)
    weights: ndarray,  # (N, T)
    d_gathered: ndarray,  # (N, C)
    d_qkv: ndarray,  # (N, 3C), whose parts of this head are written
    s: Kept,
    h: int,
    D: int,
    start: int,
    T: int,
    part: int,
) -> None:
    """A head's gradients in the window that begins at row `start`."""
    C = d_gathered.shape[1]
    queries, keys = s.heads[part, 0].reshape(T, D), s.heads[part, 1].reshape(T, D)
    values, d_found = s.heads[part, 2].reshape(D, T), s.heads[part, 3].reshape(T, D)
    d_queries, d_keys = s.heads[part, 4].reshape(T, D), s.heads[part, 5].reshape(T, D)
    d_values = s.heads[part, 6].reshape(T, D)
    for t in range(T):
        row = qkv[start + t]
        copy(row[D * h : D * (h + 1)], queries[t])
        copy(row[C + D * h : C + D * (h + 1)], keys[t])
        copy(d_gathered[start + t, D * h : D * (h + 1)], d_found[t])
        for d in range(D):
            values[d, t] = row[2 * C + D * h + d]
    d_queries[:, :] = 0
    d_keys[:, :] = 0
    d_values[:, :] = 0
    found = weights[start : start + T]
    attend_backward(queries, keys, values, found, d_found, d_queries, d_keys, d_values, s.scores[part], s.panels[part])
    for t in range(T):
        d_row = d_qkv[start + t]
        copy(d_queries[t], d_row[D * h : D * (h + 1)])
        copy(d_keys[t], d_row[C + D * h : C + D * (h + 1)])
        copy(d_values[t], d_row[2 * C + D * h : 2 * C + D * (h + 1)])


@compiled
def attend_backward(
    queries: ndarray,  # (T, D)
    keys: ndarray,  # (T, D)
    values: ndarray,  # (D, T)
    weights: ndarray,  # (T, T)
    d_found: ndarray,  # (T, D)
    d_queries: ndarray,  # (T, D), zeros
    d_keys: ndarray,  # (T, D), zeros
    d_values: ndarray,  # (T, D), zeros
    d_scores: ndarray,  # (T, T), room
    panel: ndarray,
) -> None:
    """The gradients of a head's queries, keys and values in one window, from that of what it gathered."""
    T, D = queries.shape
    scale = np.float32(1) / np.float32(np.sqrt(D))
    for start in range(0, T, LANES):
        end = min(start + LANES, T)  # no position of these sees further
        for t in range(start, end):
            d_scores[t, :end] = 0
        add_products(d_found, values, d_scores, start, end, D, end, panel)
        for t in range(start, end):
            mean = np.float32(0)
            for i in range(end):
                mean += d_scores[t, i] * weights[t, i]
            for i in range(end):
                d_scores[t, i] = weights[t, i] * (d_scores[t, i] - mean) * scale
        add_products(d_scores, keys, d_queries, start, end, end, D, panel)
        add_products(d_scores[start:end].T, queries[start:end], d_keys, 0, end, end - start, D, panel)
        add_products(weights[start:end].T, d_found[start:end], d_values, 0, end, end - start, D, panel)


@compiled
def fill(out: ndarray, vectors: ndarray, bias_at: int, first: int, last: int) -> None:
    """The bias at that place, zeros if there is none, into rows of out (N, O)."""
    outputs = out.shape[1]
    for t in range(first, last):
        if bias_at < 0:
            out[t, :] = 0
        else:
            copy(vectors[bias_at : bias_at + outputs], out[t])


@compiled
def add_rows(d_out: ndarray, d_vectors: ndarray, bias_at: int, first: int, last: int) -> None:
    """The sum of rows of a gradient (N, O), added to that of the bias at that place, if there is one."""
    outputs = d_out.shape[1]
    if bias_at >= 0:
        for t in range(first, last):
            add(d_out[t], d_vectors[bias_at : bias_at + outputs])


@compiled
def normalise(s: Kept, vectors: ndarray, at: ndarray, index: int, first: int, last: int) -> None:
    """Layer norm of the rows of x at that index, with the gain and bias at those places."""
    C = s.x.shape[2]
    gain, bias = vectors[at[0] : at[0] + C], vectors[at[1] : at[1] + C]
    for t in range(first, last):
        x, out = s.x[index, t], s.normed[index, t]
        mean, variance = np.float32(0), np.float32(0)
        for c in range(C):
            mean += x[c]
        mean /= np.float32(C)
        for c in range(C):
            variance += (x[c] - mean) * (x[c] - mean)
        scale = np.float32(1) / np.sqrt(variance / np.float32(C) + np.float32(1e-5))
        s.moments[index, t, 0], s.moments[index, t, 1] = mean, scale
        for c in range(C):
            out[c] = (x[c] - mean) * scale * gain[c] + bias[c]


@compiled
def normalise_backward(
    s: Kept, vectors: ndarray, d_vectors: ndarray, at: ndarray, index: int, first: int, last: int
) -> None:
    """The gradient of that layer norm's input, added to d_x, from d_normed; those of gain and bias added to theirs."""
    C = s.x.shape[2]
    gain = vectors[at[0] : at[0] + C]
    d_gain, d_bias = d_vectors[at[0] : at[0] + C], d_vectors[at[1] : at[1] + C]
    for t in range(first, last):
        x, d_out, d_x = s.x[index, t], s.d_normed[t], s.d_x[t]
        mean, scale = s.moments[index, t, 0], s.moments[index, t, 1]
        total, along = np.float32(0), np.float32(0)
        for c in range(C):
            unit = (x[c] - mean) * scale
            d_gain[c] += d_out[c] * unit
            d_bias[c] += d_out[c]
            total += d_out[c] * gain[c]
            along += d_out[c] * gain[c] * unit
        total /= np.float32(C)
        along /= np.float32(C)
        for c in range(C):
            d_x[c] += scale * (d_out[c] * gain[c] - total - (x[c] - mean) * scale * along)


@compiled
def cross_entropy(logits: ndarray, targets: ndarray, share: np.float32, first: int, last: int) -> float:
    """The sum of the losses of rows of logits (N, V), which become that share of their gradients."""
    V, loss = logits.shape[1], 0.0
    for t in range(first, last):
        row, target = logits[t], targets[t]
        highest, total = largest(row), np.float32(0)
        loss += np.float64(highest) - np.float64(row[target])
        for v in range(V):
            row[v] = exp(row[v] - highest)
            total += row[v]
        loss += np.log(np.float64(total))
        for v in range(V):
            row[v] *= share / total
        row[target] -= share
    return loss


@shared_out
def collect(p: Places, shape: Shape, s: Kept, d_matrices: ndarray, d_vectors: ndarray) -> None:
    """Add the parts' gradients to the model's."""
    for part in prange(PARTS):
        collect_part(p, shape, s, d_matrices, d_vectors, part)


@compiled
def collect_part(p: Places, shape: Shape, s: Kept, d_matrices: ndarray, d_vectors: ndarray, part: int) -> None:
    """Of the blocks every second; of the rest the matrices outside of blocks, or the vectors."""
    C, F, V = shape.C, 4 * shape.C, shape.V
    for layer in range(part, shape.L, PARTS):
        collect_turned(s, d_matrices, p.qkv[layer], 3 * C, C)
        collect_flat(s.d_matrices, d_matrices, p.proj[layer], C * C)
        collect_turned(s, d_matrices, p.up[layer], F, C)
        collect_flat(s.d_matrices, d_matrices, p.down[layer], C * F)
    if part == 0:
        collect_flat(s.d_matrices, d_matrices, p.tokens, V * C)
        collect_flat(s.d_matrices, d_matrices, p.positions, shape.T * C)
        if p.head != p.tokens:
            collect_flat(s.d_matrices, d_matrices, p.head, V * C)
    else:
        collect_flat(s.d_vectors, d_vectors, 0, len(d_vectors))


@compiled
def collect_flat(parts: ndarray, out: ndarray, at: int, size: int) -> None:
    """Add the parts' numbers from that place on to those of out."""
    for part in range(PARTS):
        add(parts[part, at : at + size], out[at : at + size])


@compiled
def collect_turned(s: Kept, d_matrices: ndarray, at: int, outputs: int, inputs: int) -> None:
    """The same for a matrix (outputs, inputs) whose parts are transposed."""
    target = block(d_matrices, at, outputs, inputs)
    for part in range(PARTS):
        source = block(s.d_matrices[part], at, inputs, outputs)
        for i in range(inputs):
            for o in range(outputs):
                target[o, i] += source[i, o]

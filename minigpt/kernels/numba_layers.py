"""The parts of GPT for the compiled training step: each layer forward, and its gradients backward.

Arrays are flat, and matrices lie in them row by row. Shapes: T, C, H, V and L as in model/gpt.py, W windows at a time,
R = W T rows, F = 4C hidden units, D = C / H, I inputs and O outputs of a layer. d_y is the gradient of the loss with
respect to y.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.np.arrayobj import populate_array
from numpy import ndarray

from minigpt.config import ModelConfig
from minigpt.kernels.numba_jit import njit_inner
from minigpt.kernels.numba_matmul import (
    ADD,
    BIAS_RELU,
    CAUSAL,
    CAUSAL_COLUMNS,
    CAUSAL_RESULT,
    FULL,
    ONE,
    ZERO,
    multiply,
)
from minigpt.kernels.numba_matvec import FLOAT32, WIDTH, multiply_packed, multiply_rows
from minigpt.kernels.numba_ops import ACTIVATIONS, exp, find_largest
from minigpt.kernels.numba_vectors import COLUMNS, get_address, intrinsic, pad, skip

MAX_ROWS = 128  # at a time, so that their activations stay in a core's cache; at least one window
EPSILON = 1e-5  # of the layer norms
RELU, GELU = 0, 1  # places in numba_ops.ACTIVATIONS


class Sizes(NamedTuple):
    """The sizes of a model, the number of its activation in ACTIVATIONS, and the rows that are computed at a time."""

    T: int
    C: int
    H: int
    V: int
    L: int
    F: int
    activation: int
    R: int


def choose_sizes(config: ModelConfig, T: int) -> Sizes:
    """Return the sizes of a model for windows of T tokens."""
    C, rows = config.n_embd, max(1, MAX_ROWS // T) * T
    activation = ACTIVATIONS.index(config.activation)
    return Sizes(T, C, config.n_head, config.vocab_size, config.n_layer, 4 * C, activation, rows)


@intrinsic
def array_at(typing: Any, address: Any, size: Any) -> Any:
    """Return the array of `size` float32 numbers at an address. So the parameters can be anywhere in memory."""
    result = types.Array(types.float32, 1, "C")

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array = context.make_array(result)(context, builder)
        data, four = builder.inttoptr(arguments[0], ir.FloatType().as_pointer()), context.get_constant(types.intp, 4)
        populate_array(array, data=data, shape=[arguments[1]], strides=[four], itemsize=four, meminfo=None)
        return array._getvalue()

    return result(address, size), generate


@njit_inner
def transpose(x: ndarray, rows: int, columns: int, out: ndarray) -> None:
    """Write the transpose of x (rows, columns) to out, sixteen rows at a time."""
    for first in range(0, rows, 16):
        for c in range(columns):
            for r in range(first, min(first + 16, rows)):
                out[c * rows + r] = x[r * columns + c]


@njit_inner
def linear(
    x: ndarray,
    transposed: ndarray,
    bias: ndarray,
    sizes: tuple[int, int, int],
    start: int,
    out: ndarray,
    panel: ndarray,
) -> None:
    """Multiply x (R, I) by a transposed weight (I, O), for sizes R, I, O. `start` is BIAS, or BIAS_RELU."""
    R, I, O = sizes  # noqa: E741
    if R == 1 and O % COLUMNS == 0:  # a tile would compute the row several times
        multiply_rows(x, get_address(transposed), (I, O, O), out)
        for o in range(O):
            out[o] += bias[o]
            out[o] = np.float32(0) if start == BIAS_RELU and out[o] < 0 else out[o]
        return
    multiply(x, (I, ONE), transposed, (O, ONE), out, (R, O, I, O), (start, FULL), bias, panel)


@njit_inner
def linear_backward(
    d_out: ndarray,
    x: ndarray,
    weight: ndarray,
    sizes: tuple[int, int, int],
    d_x: ndarray,
    d_weight: ndarray,
    d_bias: ndarray,
    panel: ndarray,
) -> None:
    """Write the gradient of x (R, I); add those of weight (O, I) and bias (O,)."""
    R, I, O = sizes  # noqa: E741
    multiply(d_out, (O, ONE), weight, (I, ONE), d_x, (R, I, O, I), (ZERO, FULL), d_bias, panel)
    multiply(d_out, (ONE, O), x, (I, ONE), d_weight, (O, I, R, I), (ADD, FULL), d_bias, panel)
    for r in range(R):
        for o in range(O):
            d_bias[o] += d_out[r * O + o]


@njit_inner
def normalize(x: ndarray, gain: ndarray, bias: ndarray, R: int, C: int, out: ndarray, moments: ndarray) -> None:
    """Layer norm of the rows of x (R, C). Write mean and 1 / standard deviation of each row to moments (R, 2)."""
    for r in range(R):
        row, result = skip(x, r * C), skip(out, r * C)
        mean, variance = np.float32(0), np.float32(0)
        for c in range(C):
            mean += row[c]
        mean /= np.float32(C)
        for c in range(C):
            variance += (row[c] - mean) * (row[c] - mean)
        scale = np.float32(1) / np.float32(math.sqrt(variance / np.float32(C) + np.float32(EPSILON)))
        moments[2 * r], moments[2 * r + 1] = mean, scale
        for c in range(C):
            result[c] = (row[c] - mean) * scale * gain[c] + bias[c]


@njit_inner
def normalize_backward(
    d_out: ndarray,
    x: ndarray,
    moments: ndarray,
    gain: ndarray,
    sizes: tuple[int, int],
    d_x: ndarray,
    d_gain: ndarray,
    d_bias: ndarray,
) -> None:
    """Add the gradients of the layer norm's input x (R, C), gain and bias, for sizes R, C."""
    R, C = sizes
    for r in range(R):
        d_row, row, d_result = skip(d_out, r * C), skip(x, r * C), skip(d_x, r * C)
        mean, scale = moments[2 * r], moments[2 * r + 1]
        total, product = np.float32(0), np.float32(0)
        for c in range(C):
            d_normed = d_row[c] * gain[c]
            total += d_normed
            product += d_normed * (row[c] - mean) * scale
        total /= np.float32(C)
        product /= np.float32(C)
        for c in range(C):
            normed = (row[c] - mean) * scale
            d_result[c] += scale * (d_row[c] * gain[c] - total - normed * product)
            d_gain[c] += d_row[c] * normed
            d_bias[c] += d_row[c]


@njit_inner
def attend(qkv: ndarray, s: Sizes, windows: int, weights: ndarray, distance: int, out: ndarray, panel: ndarray) -> None:
    """Causal attention: qkv (R, 3C) -> out (R, C).

    The attention weights (T, T) of a head and those of the next are `distance` numbers apart: T * T keeps them all, and
    0 those of the last head.
    """
    T, C, D = s.T, s.C, s.C // s.H
    scale = np.float32(1) / np.float32(math.sqrt(D))
    for n in range(windows * s.H):
        head = n // s.H * T * 3 * C + n % s.H * D
        q, k, v, scores = skip(qkv, head), skip(qkv, head + C), skip(qkv, head + 2 * C), skip(weights, n * distance)
        multiply(q, (3 * C, ONE), k, (ONE, 3 * C), scores, (T, T, D, T), (ZERO, CAUSAL_RESULT), q, panel)
        for t in range(T):
            row = scores[t * T : t * T + t + 1]
            highest, total = find_largest(row), np.float32(0)
            for i in range(t + 1):
                row[i] = exp((row[i] - highest) * scale)
                total += row[i]
            for i in range(t + 1):
                row[i] /= total
            for i in range(t + 1, T):
                scores[t * T + i] = 0
        result = skip(out, n // s.H * T * C + n % s.H * D)
        multiply(scores, (T, ONE), v, (3 * C, ONE), result, (T, D, T, C), (ZERO, CAUSAL), q, panel)


@njit_inner
def store_in_cache(k: ndarray, v: ndarray, cache: tuple[int, int, int], D: int) -> None:
    """Store the key and the value (D,) of one head at a position; see `attend_with_cache`."""
    position, keys, values = cache
    lane = position % WIDTH
    panel, row = array_at(keys + 4 * (position - lane) * D, D * WIDTH), array_at(values + 4 * position * pad(D), D)
    for d in range(D):
        panel[d * WIDTH + lane], row[d] = k[d], v[d]


@njit_inner
def attend_with_cache(q: ndarray, cache: tuple[int, int, int], D: int, scores: ndarray, out: ndarray) -> None:
    """Attend with one head to a position and all before it.

    Args:
        q: the query of the position, (D,).
        cache: the position, and the addresses of the keys, in panels (D, WIDTH) of positions, and of the values (T, E),
            where E is D up to a multiple of COLUMNS.
        D: the size of the head.
        scores: scratch memory, (T,) up to a multiple of WIDTH.
        out: receives the result (D,); it has room for E numbers.
    """
    position, keys, values = cache
    length = position + 1
    multiply_packed(q, keys, FLOAT32, (D, pad(length, WIDTH), D), None, scores)
    scale = np.float32(1) / np.float32(math.sqrt(D))
    highest, total = find_largest(scores[:length]), np.float32(0)
    for t in range(length):
        scores[t] = exp((scores[t] - highest) * scale)
        total += scores[t]
    multiply_rows(scores, values, (length, D, pad(D)), out)
    for d in range(D):
        out[d] /= total


@njit_inner
def attend_backward(
    d_out: ndarray,
    qkv: ndarray,
    weights: ndarray,
    s: Sizes,
    windows: int,
    d_qkv: ndarray,
    d_scores: ndarray,
    panel: ndarray,
) -> None:
    """Write the gradients of queries, keys and values (R, 3C). d_scores (T, T) is scratch memory."""
    T, C, D = s.T, s.C, s.C // s.H
    scale = np.float32(1) / np.float32(math.sqrt(D))
    for n in range(windows * s.H):
        head = n // s.H * T * 3 * C + n % s.H * D
        q, k, v, shares = skip(qkv, head), skip(qkv, head + C), skip(qkv, head + 2 * C), skip(weights, n * T * T)
        d_q, d_k, d_v = skip(d_qkv, head), skip(d_qkv, head + C), skip(d_qkv, head + 2 * C)
        d_result = skip(d_out, n // s.H * T * C + n % s.H * D)
        multiply(shares, (ONE, T), d_result, (C, ONE), d_v, (T, D, T, 3 * C), (ZERO, CAUSAL_COLUMNS), q, panel)
        multiply(d_result, (C, ONE), v, (ONE, 3 * C), d_scores, (T, T, D, T), (ZERO, CAUSAL_RESULT), q, panel)
        for t in range(T):
            row, d_row, total = skip(shares, t * T), skip(d_scores, t * T), np.float32(0)
            for i in range(t + 1):
                total += row[i] * d_row[i]
            for i in range(t + 1):
                d_row[i] = row[i] * (d_row[i] - total) * scale
            for i in range(t + 1, T):
                d_row[i] = 0
        multiply(d_scores, (T, ONE), k, (3 * C, ONE), d_q, (T, D, T, 3 * C), (ZERO, CAUSAL), q, panel)
        multiply(d_scores, (ONE, T), q, (3 * C, ONE), d_k, (T, D, T, 3 * C), (ZERO, CAUSAL_COLUMNS), q, panel)


@njit_inner
def activate_backward(d_hidden: ndarray, up: ndarray, hidden: ndarray, size: int, activation: int) -> None:
    """Turn the gradient of hidden = activation(up) into that of up, in place; see `numba_ops.activate`.

    A GELU is x p(x), and its derivative p(x) + x p'(x): p is the logistic function for GPT-2's, and the normal
    distribution's for the exact one.
    """
    if activation == RELU:
        for i in range(size):
            d_hidden[i] = d_hidden[i] if hidden[i] > 0 else np.float32(0)
    else:
        for i in range(size):
            x = up[i]
            if activation == GELU:
                y = np.float32(1.5957691) * (x + np.float32(0.044715) * x * x * x)
                e = exp(-abs(y))
                p = (np.float32(1) if y > 0 else e) / (np.float32(1) + e)
                slope = p * (np.float32(1) - p) * np.float32(1.5957691) * (np.float32(1) + np.float32(0.134145) * x * x)
            else:
                p = hidden[i] / x if x != 0 else np.float32(0.5)
                slope = np.float32(0.39894228) * exp(np.float32(-0.5) * x * x)
            d_hidden[i] *= p + x * slope


@njit_inner
def compute_cross_entropy(logits: ndarray, targets: ndarray, V: int, weight: float, d_logits: ndarray) -> float:
    """Return the sum of the losses of logits (R, V), and write their gradients times `weight`.

    A target below 0 has no loss.
    """
    loss = 0.0
    for r in range(len(targets)):
        row, d_row, target = logits[r * V : r * V + V], skip(d_logits, r * V), targets[r]
        factor, highest, total = np.float32(0), find_largest(row), np.float32(0)
        for i in range(V):
            d_row[i] = exp(row[i] - highest)
            total += d_row[i]
        if target >= 0:
            loss += math.log(total) + highest - row[target]
            factor = np.float32(weight) / total
        for i in range(V):
            d_row[i] *= factor
        if target >= 0:
            d_row[target] -= np.float32(weight)
    return loss

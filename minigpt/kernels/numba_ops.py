"""The operations of the compiled loops: matrix products, layer norm, the activation, the maximum.

The loops run over NumPy arrays and are compiled by Numba, for a CPU. `numba_decode.py` uses them for one token after
another, `numba_window.py` for a whole window. Three things make them fast:

- Matrices are stored (inputs, outputs). A product adds up their rows, several at a time, so that the vector units of
  the processor run along the outputs.
- Arrays come from PyTorch, whose memory begins at multiples of 64 bytes. A vector that crosses such a line takes
  twice as long to load.
- The work of a larger model is split into parts for two cores. The parts do not depend on the number of threads, and
  so neither does the result.
"""

import math

import numpy as np
import torch
from numpy import ndarray

from minigpt.kernels.numba_jit import NO_ALLOCATION, njit_cached, njit_fast

ACTIVATIONS = ("relu", "gelu", "gelu_exact")


def empty_array(*shape: int) -> ndarray:
    """Return an array of float32 numbers, aligned to 64 bytes and not initialized."""
    return torch.empty(shape, dtype=torch.float32, device="cpu").numpy()


@njit_fast
def copy(x: ndarray, out: ndarray) -> None:
    """Copy x (N,) to out."""
    for i in range(len(out)):
        out[i] = x[i]


@njit_fast
def add(x: ndarray, out: ndarray) -> None:
    """Add x (N,) to out."""
    for i in range(len(out)):
        out[i] += x[i]


@njit_fast
def add_product(x: ndarray, matrix: ndarray, out: ndarray, rows: ndarray) -> None:
    """Add x @ matrix to out, for (I,), (I, O) and (O,), four rows of the matrix at a time.

    Rows that would be multiplied by zero are not read; after a ReLU these are most. `rows` (I,) is scratch memory for
    the numbers of the other rows.
    """
    count = 0
    for i in range(len(x)):
        rows[count] = i
        count += x[i] != 0
    whole = count // 4 * 4
    for n in range(0, whole, 4):
        i, j, k, m = rows[n], rows[n + 1], rows[n + 2], rows[n + 3]
        xi, xj, xk, xm = x[i], x[j], x[k], x[m]
        for o in range(len(out)):
            out[o] += xi * matrix[i, o] + xj * matrix[j, o] + xk * matrix[k, o] + xm * matrix[m, o]
    for n in range(whole, count):
        i = rows[n]
        for o in range(len(out)):
            out[o] += x[i] * matrix[i, o]


@njit_fast
def layer_norm(x: ndarray, affine: ndarray, out: ndarray) -> None:
    """Normalize x (C,) to mean 0 and variance 1, multiply by the gain and add the bias (2, C)."""
    C = len(x)
    mean = np.float32(0)
    for c in range(C):
        mean += x[c]
    mean /= np.float32(C)
    variance = np.float32(0)
    for c in range(C):
        variance += (x[c] - mean) * (x[c] - mean)
    scale = np.float32(1 / math.sqrt(variance / C + 1e-5))
    for c in range(C):
        out[c] = (x[c] - mean) * scale * affine[0, c] + affine[1, c]


@njit_cached(**NO_ALLOCATION, inline="always")
def exp(x: np.float32) -> np.float32:
    """Compute e^x in float32 for an x of at most 0, since the compiler has no exp for vectors.

    x is n ln 2 + r with |r| at most half of ln 2. The result is 2^n, made from its bits, times the power series of
    e^r, whose next term would be below 1e-8.
    """
    x = x if x > np.float32(-87) else np.float32(-87)  # e^-87 is nearly the smallest float32
    whole = np.int32(x * np.float32(1.44269504) - np.float32(0.5))  # rounded, since x <= 0
    n = np.float32(whole)
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    series = series * r + np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(1 / 2)
    series = series * r + np.float32(1)
    series = series * r + np.float32(1)
    power = np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)
    return np.float32(series * power)


@njit_fast
def activate(x: ndarray, activation: int) -> None:
    """Apply an activation in place; its number is its place in ACTIVATIONS.

    GPT-2's GELU is x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3). The exact GELU is x times the
    normal distribution's function. Its tail comes from formula 7.1.26 of Abramowitz and Stegun, "Handbook of
    Mathematical Functions", which is off by less than 1e-7.
    """
    if activation == 0:
        for i in range(len(x)):
            x[i] = max(x[i], np.float32(0))
    elif activation == 1:
        for i in range(len(x)):
            y = np.float32(1.5957691) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
            e = exp(-abs(y))
            x[i] *= (np.float32(1) if y > 0 else e) / (np.float32(1) + e)
    else:
        for i in range(len(x)):
            z = abs(x[i]) * np.float32(0.70710678)  # |x| / sqrt(2)
            t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
            series = np.float32(1.061405429) * t - np.float32(1.453152027)
            series = series * t + np.float32(1.421413741)
            series = series * t - np.float32(0.284496736)
            series = series * t + np.float32(0.254829592)
            tail = np.float32(0.5) * series * t * exp(-z * z)  # the probability of a number beyond |x|
            x[i] *= (np.float32(1) - tail) if x[i] > 0 else tail


@njit_fast
def find_largest(x: ndarray) -> np.float32:
    """Return the largest of some float32 numbers, none of them NaN, by comparing their bits as integers.

    The bits of positive numbers, read as integers, have the same order as the numbers. Those of negative numbers have
    it once all bits but the sign are inverted. The compiler has a vector maximum for integers, not for floats.
    """
    bits = x.view(np.int32)
    found = np.int32(-(2**31))
    for i in range(len(x)):
        found = max(found, bits[i] ^ ((bits[i] >> 31) & np.int32(2**31 - 1)))
    return np.int32(found ^ ((found >> 31) & np.int32(2**31 - 1))).view(np.float32)

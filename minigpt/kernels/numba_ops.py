"""Elementwise operations of the compiled loops: e^x, the activations, the maximum.

The loops run over NumPy arrays and are compiled by Numba, for a CPU. numba_decode.py uses them for one token after
another, numba_forward.py for several windows.
"""

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from minigpt.kernels.numba_jit import NO_ALLOCATION, njit_cached, njit_fast

ACTIVATIONS = ("relu", "gelu", "gelu_exact")


def create_zeros(*shape: int) -> Tensor:
    """Return zeros in float32, aligned to 64 bytes: a vector that crosses such a line takes twice as long to load."""
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


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

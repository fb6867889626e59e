"""Sampling in a compiled loop: temperature, top-k and top-p, as in generation/engine.py."""

import math
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from minigpt.kernels.numba_jit import njit_exact


class Sampling(NamedTuple):
    """`SamplingConfig` as numbers: top_k is 0 and top_p is 1 where they are not used."""

    temperature: float
    top_k: int
    top_p: float


@njit_exact
def sample_tokens(logits: ndarray, sampling: Sampling, uniforms: ndarray) -> ndarray:
    """Sample a token (B,) from each row of logits (B, V), with a random number in [0, 1) for each (B,)."""
    tokens = np.empty(len(logits), np.int64)
    for b in range(len(logits)):
        tokens[b] = sample_token(logits[b], sampling, uniforms[b])
    return tokens


@njit_exact
def sample_token(logits: ndarray, sampling: Sampling, uniform: float) -> int:
    """Sample a token from logits (V,), as `choose_next_token` in generation/engine.py does for one row, in float64."""
    V, best = len(logits), 0
    for i in range(V):
        if logits[i] > logits[best]:
            best = i
    if sampling.temperature == 0:
        return best
    scaled, weights = np.empty(V), np.empty(V)
    for i in range(V):
        scaled[i] = (np.float64(logits[i]) - np.float64(logits[best])) / sampling.temperature
        weights[i] = math.exp(scaled[i])
    if sampling.top_k > 0 or sampling.top_p < 1:
        _filter_weights(scaled, weights, sampling)
    target, reached, chosen = uniform * _sum_in_order(weights), 0.0, best
    for i in range(V):
        if weights[i] > 0:
            chosen = i
            reached += weights[i]
            if reached > target:
                break
    return chosen


@njit_exact
def _filter_weights(logits: ndarray, weights: ndarray, sampling: Sampling) -> None:
    """Set to 0 the weights (V,) of the tokens that top_k and top_p exclude by their logits (V,)."""
    V, order = len(logits), np.argsort(logits, kind="mergesort")
    least = logits[order[V - sampling.top_k]] if 0 < sampling.top_k < V else -np.inf
    for i in range(V):
        if logits[i] < least:
            weights[i] = 0
    tail, limit = 0.0, (1 - sampling.top_p) * _sum_in_order(weights)
    for i in order[: V - 1] if sampling.top_p < 1 else order[:0]:
        tail += weights[i]
        if tail > limit:
            break
        weights[i] = 0


@njit_exact
def _sum_in_order(weights: ndarray) -> float:
    """Return the sum of the weights, added in their order."""
    total = 0.0
    for weight in weights:
        total += weight
    return total

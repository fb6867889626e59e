"""The parts of the compiled loops: GPT's weights as arrays, matrix products, layer norm, and sampling.

The loops run over NumPy arrays and are compiled by Numba, for a CPU. `numba_decode.py` uses them for one token after
another, `numba_window.py` for a whole window. Three things make them fast:

- Matrices are stored (inputs, outputs). A product adds up their rows, several at a time, so that the vector units of
  the processor run along the outputs.
- Arrays come from PyTorch, whose memory begins at multiples of 64 bytes. A vector that crosses such a line takes
  twice as long to load.
- The work of a larger model is split into parts for two cores. The parts do not depend on the number of threads, and
  so neither does the result.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numba
import numpy as np
import torch
from numba import njit
from numpy import ndarray
from torch import Tensor, nn

from minigpt.model.gpt import GPT
from minigpt.model.quantization import Linear8bit

SETTINGS = vars(numba.config)


def _has_openmp() -> bool:
    """Return whether Numba can start threads by OpenMP. That takes 2 microseconds; its own thread pool takes 100."""
    try:
        from numba.np.ufunc import omppool  # type: ignore[attr-defined]  # noqa: F401
    except ImportError:
        return False
    return SETTINGS["THREADING_LAYER"] in ("default", "omp")


if _has_openmp():
    SETTINGS["THREADING_LAYER"] = "omp"
SETTINGS["NUMBA_NUM_THREADS"] = min(SETTINGS["NUMBA_NUM_THREADS"], torch.get_num_threads())  # both share it

# These options let the compiler use vectors: it may reorder sums, and a division by zero is no error. Infinities are
# still treated correctly.
FAST: dict[str, Any] = {"cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
NO_ALLOCATION: dict[str, Any] = FAST | {"_nrt": False}  # without allocations, arrays need no reference counts


def _njit_cached(**options: Any) -> Callable[[Callable], Any]:
    """Return a decorator that compiles a function and caches the result in a directory for this version of the loops.

    A compiled function contains all functions that it calls, but Numba's cache checks only the function's own file.
    """

    def decorate(function: Callable) -> Any:
        before = SETTINGS["CACHE_DIR"]
        SETTINGS["CACHE_DIR"] = str(
            Path(before or Path(__file__).parent / "__pycache__") / f"compiled-{hash_sources()}"
        )
        try:
            return njit(**options)(function)
        finally:
            SETTINGS["CACHE_DIR"] = before

    return decorate


@functools.cache
def hash_sources() -> str:
    """Return the first 16 digits of the SHA-256 of the files with compiled loops."""
    files = (Path(__file__).with_name(f"{name}.py") for name in ("numba_ops", "numba_decode", "numba_window"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


njit_fast = _njit_cached(**NO_ALLOCATION)
njit_allocating = _njit_cached(**FAST)
njit_parallel = _njit_cached(**FAST, parallel=_has_openmp())  # for a function with a `prange`
njit_exact = _njit_cached(cache=True, error_model="numpy")

Layer = nn.Linear | Linear8bit


class Weights(NamedTuple):
    """The parameters of a GPT in float32, or matrices in int8, stored (inputs, outputs). F is 4C.

    Each of the L layers is split into P parts. A part of qkv and of up has some of their columns, a part of proj and
    of down the rows that belong to these columns. The result of a product is multiplied by the first row of its
    `affine`, and the second row is added. For float32 these are ones and the bias, for int8 the scales and the bias.
    """

    tokens: ndarray  # (V, C)
    positions: ndarray  # (T, C)
    ln1: ndarray  # (L, 2, C)
    qkv: ndarray  # (L, P, C, 3C / P), head after head: D queries, D keys, D values
    qkv_affine: ndarray  # (L, P, 2, 3C / P)
    proj: ndarray  # (L, P, C / P, C)
    proj_affine: ndarray  # (L, 2, C)
    ln2: ndarray  # (L, 2, C)
    up: ndarray  # (L, P, C, F / P)
    up_affine: ndarray  # (L, P, 2, F / P)
    down: ndarray  # (L, P, F / P, C)
    down_affine: ndarray  # (L, 2, C)
    ln_f: ndarray  # (2, C)
    head: ndarray  # (P, C, V / P), with columns of zeros at the end if P does not divide V
    head_affine: ndarray  # (P, 2, V / P)


def extract_weights(model: GPT, parts: int = 1, full: bool = False) -> Weights:
    """Return a GPT's parameters as arrays for the loops.

    Args:
        model: a GPT in float32 on a CPU.
        parts: P, the number of parts of each layer; it divides n_head.
        full: whether to dequantize matrices in int8.
    """
    C, H, V = model.config.n_embd, model.config.n_head, model.config.vocab_size
    by_head = torch.arange(3 * C).view(3, H, C // H).transpose(0, 1).flatten()
    padded = torch.cat([torch.arange(V), torch.zeros(-V % parts, dtype=torch.int64)])

    def columns(layers: Sequence[Layer], outputs: Tensor | slice = slice(None)) -> tuple[ndarray, ndarray]:
        """Return matrices (L, P, I, O / P) and affines (L, P, 2, O / P)."""
        matrices = torch.stack([matrix[outputs].T for matrix in matrices_of(layers)])  # (L, I, O)
        affines = affines_of(layers)[:, :, outputs]
        first, second = (x.unflatten(2, (parts, -1)).transpose(1, 2).contiguous() for x in (matrices, affines))
        return first.numpy(), second.numpy()

    def rows(layers: Sequence[Layer]) -> tuple[ndarray, ndarray]:
        """Return matrices (L, P, I / P, O) and affines (L, 2, O), which follow the sum of the products."""
        matrices = torch.stack([matrix.T for matrix in matrices_of(layers)]).unflatten(1, (parts, -1))
        return matrices.contiguous().numpy(), affines_of(layers).numpy()

    def matrices_of(layers: Sequence[Layer]) -> list[Tensor]:
        return [layer.codes if is_int8(layer) else layer.weight.detach() for layer in layers]

    def affines_of(layers: Sequence[Layer]) -> Tensor:
        scales = [layer.scale if is_int8(layer) else tokens.new_ones(layer.out_features) for layer in layers]
        biases = [
            tokens.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers
        ]
        return torch.stack([torch.stack(scales), torch.stack(biases)], dim=1)  # (L, 2, O)

    def is_int8(layer: Layer) -> TypeGuard[Linear8bit]:
        return isinstance(layer, Linear8bit) and not full

    def norms(layers: list[nn.LayerNorm]) -> ndarray:
        return torch.stack([torch.stack([layer.weight, layer.bias]) for layer in layers]).detach().numpy()

    blocks, head, tokens = model.blocks, model.lm_head, model.token_embedding_table.weight.detach()
    if head is None:
        head = nn.Linear(C, V, bias=False, device="meta")
        head.weight = model.token_embedding_table.weight
    qkv, qkv_affine = columns([block.attention.qkv for block in blocks], by_head)
    proj, proj_affine = rows([block.attention.proj for block in blocks])
    up, up_affine = columns([block.ffwd.up for block in blocks])
    down, down_affine = rows([block.ffwd.down for block in blocks])
    heads, head_affine = columns([head], padded)
    return Weights(
        tokens=tokens.numpy(),
        positions=model.position_embedding_table.weight.detach().numpy(),
        ln1=norms([block.ln1 for block in blocks]),
        qkv=qkv,
        qkv_affine=qkv_affine,
        proj=proj,
        proj_affine=proj_affine,
        ln2=norms([block.ln2 for block in blocks]),
        up=up,
        up_affine=up_affine,
        down=down,
        down_affine=down_affine,
        ln_f=norms([model.ln_f])[0],
        head=heads[0],
        head_affine=head_affine[0],
    )


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


@_njit_cached(**NO_ALLOCATION, inline="always")
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
def activate(x: ndarray, relu: bool) -> None:
    """Apply ReLU in place, or GPT-2's GELU: x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    if relu:
        for i in range(len(x)):
            x[i] = max(x[i], np.float32(0))
    else:
        for i in range(len(x)):
            y = np.float32(1.5957691) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
            e = exp(-abs(y))
            x[i] *= (np.float32(1) if y > 0 else e) / (np.float32(1) + e)


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


class Sampling(NamedTuple):
    """`SamplingConfig` as numbers: top_k is 0 and top_p is 1 where they are not used."""

    temperature: float
    top_k: int
    top_p: float


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

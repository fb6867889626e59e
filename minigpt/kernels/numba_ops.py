"""What the compiled loops are made of: a GPT's weights as they want them, products, layer norm, and the choice.

Plain loops over plain arrays, compiled by Numba, for a CPU. kernels/numba_decode.py makes one token after another
of them, kernels/numba_window.py a whole window. Three things keep them fast. Matrices are stored (inputs, outputs) and
a product adds up their rows, several at a time, so that the processor's vector units run along the outputs. Arrays
come from PyTorch, whose memory begins at multiples of 64 bytes, since a vector that straddles two such lines takes
twice as long to load. And the work of a larger model is cut into parts for two cores, the same parts whatever the
number of threads, so that it changes no result.
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

from minigpt.kernels.onednn_linear import Linear
from minigpt.model.gpt import GPT
from minigpt.model.int8 import Linear8bit

SETTINGS = vars(numba.config)


def has_openmp() -> bool:
    """Whether Numba can share work by OpenMP, in a microsecond or two; its own way takes a hundred."""
    try:
        from numba.np.ufunc import omppool  # type: ignore[attr-defined]  # noqa: F401
    except ImportError:
        return False
    return SETTINGS["THREADING_LAYER"] in ("default", "omp")


if has_openmp():
    SETTINGS["THREADING_LAYER"] = "omp"
SETTINGS["NUMBA_NUM_THREADS"] = min(SETTINGS["NUMBA_NUM_THREADS"], torch.get_num_threads())  # it sets PyTorch's too

# What lets the compiler use vectors: sums may be taken in any order, and a division by zero is no error. Infinities
# stay what they are.
FAST: dict[str, Any] = {"cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
SPARING: dict[str, Any] = FAST | {"_nrt": False}  # nothing is allocated, and so nobody counts who holds an array


def cached(**options: Any) -> Callable[[Callable], Any]:
    """A decorator that compiles a function, and keeps the result where no other version of these files looks.

    What is kept holds all that the function calls, and Numba asks only whether the function's own file has changed.
    """

    def decorate(function: Callable) -> Any:
        before = SETTINGS["CACHE_DIR"]
        SETTINGS["CACHE_DIR"] = str(Path(before or Path(__file__).parent / "__pycache__") / f"compiled-{version()}")
        try:
            return njit(**options)(function)
        finally:
            SETTINGS["CACHE_DIR"] = before

    return decorate


@functools.cache
def version() -> str:
    """The beginning of the SHA-256 of the files with compiled loops."""
    files = (Path(__file__).with_name(f"{name}.py") for name in ("numba_ops", "numba_decode", "numba_window"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


compiled = cached(**SPARING)
allocating = cached(**FAST)
shared_out = cached(**FAST, parallel=has_openmp())  # for a function with a `prange` in it
exactly = cached(cache=True, error_model="numpy")

Layer = Linear | Linear8bit


class Weights(NamedTuple):
    """A GPT's parameters, float32 but for matrices in 8 bits, which lie (inputs, outputs); F is 4C.

    Each of the L layers is cut into P parts. A part of qkv and of up is some of their columns, a part of proj and of
    down the rows to which those lead. After a product with a matrix comes its `affine`: times the first row, plus the
    second. For float32 that is times 1, plus the bias; for 8 bits the first row has the scales.
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


def weights_of(model: GPT, parts: int = 1, full: bool = False) -> Weights:
    """A GPT's parameters as these loops want them, in so many parts, which divide n_head.

    Matrices that have 8 bits keep them, unless `full` is set.
    """
    C, H, V = model.config.n_embd, model.config.n_head, model.config.vocab_size
    by_head = torch.arange(3 * C).view(3, H, C // H).transpose(0, 1).flatten()
    padded = torch.cat([torch.arange(V), torch.zeros(-V % parts, dtype=torch.int64)])

    def columns(layers: Sequence[Layer], outputs: Tensor | slice = slice(None)) -> tuple[ndarray, ndarray]:
        """Matrices (L, P, I, O / P) and what comes after the product, (L, P, 2, O / P)."""
        matrices = torch.stack([matrix[outputs].T for matrix in matrices_of(layers)])  # (L, I, O)
        affines = affines_of(layers)[:, :, outputs]
        first, second = (x.unflatten(2, (parts, -1)).transpose(1, 2).contiguous() for x in (matrices, affines))
        return first.numpy(), second.numpy()

    def rows(layers: Sequence[Layer]) -> tuple[ndarray, ndarray]:
        """Matrices (L, P, I / P, O) and what comes after the sum of the products, (L, 2, O)."""
        matrices = torch.stack([matrix.T for matrix in matrices_of(layers)]).unflatten(1, (parts, -1))
        return matrices.contiguous().numpy(), affines_of(layers).numpy()

    def matrices_of(layers: Sequence[Layer]) -> list[Tensor]:
        return [layer.codes if coded(layer) else layer.weight.detach() for layer in layers]

    def affines_of(layers: Sequence[Layer]) -> Tensor:
        scales = [layer.scale if coded(layer) else tokens.new_ones(layer.out_features) for layer in layers]
        biases = [
            tokens.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers
        ]
        return torch.stack([torch.stack(scales), torch.stack(biases)], dim=1)  # (L, 2, O)

    def coded(layer: Layer) -> TypeGuard[Linear8bit]:
        return isinstance(layer, Linear8bit) and not full

    def norms(layers: list[nn.LayerNorm]) -> ndarray:
        return torch.stack([torch.stack([layer.weight, layer.bias]) for layer in layers]).detach().numpy()

    blocks, head, tokens = model.blocks, model.lm_head, model.token_embedding_table.weight.detach()
    if head is None:
        head = Linear(C, V, bias=False, device="meta")
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


def empty(*shape: int) -> ndarray:
    """Memory for float32 numbers, well aligned."""
    return torch.empty(shape, dtype=torch.float32, device="cpu").numpy()


@compiled
def copy(x: ndarray, out: ndarray) -> None:
    """The numbers of x (N,) into out."""
    for i in range(len(out)):
        out[i] = x[i]


@compiled
def add(x: ndarray, out: ndarray) -> None:
    """The numbers of x (N,) added to out."""
    for i in range(len(out)):
        out[i] += x[i]


@compiled
def add_product(x: ndarray, matrix: ndarray, out: ndarray, rows: ndarray) -> None:
    """Add x @ matrix to out, for (I,), (I, O) and (O,).

    Rows of the matrix four at a time; those times zero, which a ReLU makes of most, are never read: `rows` (I,) is
    room to note the others.
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


@compiled
def layer_norm(x: ndarray, affine: ndarray, out: ndarray) -> None:
    """Vector x (C,) with a mean of 0 and a variance of 1, then times the gain and plus the bias (2, C)."""
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


@cached(**SPARING, inline="always")
def exp(x: np.float32) -> np.float32:
    """The power e^x for an x of at most 0, in float32; written out because the compiler has no exp for vectors.

    x is n ln 2 + r with |r| at most half of ln 2: the result is 2^n, made from its bits, times the power
    series of e^r, whose next term would be below 1e-8.
    """
    x = x if x > np.float32(-87) else np.float32(-87)  # below it there is nothing but zero
    whole = np.int32(x * np.float32(1.44269504) - np.float32(0.5))  # cut towards 0, and so rounded, as x is not above 0
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


@compiled
def activate(x: ndarray, relu: bool) -> None:
    """ReLU in place, or GPT-2's GELU: x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    if relu:
        for i in range(len(x)):
            x[i] = max(x[i], np.float32(0))
    else:
        for i in range(len(x)):
            y = np.float32(1.5957691) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
            e = exp(-abs(y))
            x[i] *= (np.float32(1) if y > 0 else e) / (np.float32(1) + e)


@compiled
def largest(x: ndarray) -> np.float32:
    """The largest of some float32 numbers, none of them NaN, found among their bits.

    Read as an integer, a positive number's bits keep its place in the order, and a negative one's do once all but the
    sign are turned over. For integers the compiler has a vector maximum, for floats it doesn't.
    """
    bits = x.view(np.int32)
    found = np.int32(-(2**31))
    for i in range(len(x)):
        found = max(found, bits[i] ^ ((bits[i] >> 31) & np.int32(2**31 - 1)))
    return np.int32(found ^ ((found >> 31) & np.int32(2**31 - 1))).view(np.float32)


class Choice(NamedTuple):
    """How the next token is chosen: `SamplingConfig`, with 0 for a top_k and 1 for a top_p that isn't asked for."""

    temperature: float
    top_k: int
    top_p: float


@exactly
def choose(logits: ndarray, choice: Choice, uniform: float) -> int:
    """The next token from its logits (V,): `next_token` of generation/engine.py for one row, in float64 as there."""
    V, best = len(logits), 0
    for i in range(V):
        if logits[i] > logits[best]:
            best = i
    if choice.temperature == 0:
        return best
    scaled, weights = np.empty(V), np.empty(V)
    for i in range(V):
        scaled[i] = (np.float64(logits[i]) - np.float64(logits[best])) / choice.temperature
        weights[i] = math.exp(scaled[i])
    if choice.top_k > 0 or choice.top_p < 1:
        cut(scaled, weights, choice)
    target, reached, chosen = uniform * total(weights), 0.0, best
    for i in range(V):
        if weights[i] > 0:
            chosen = i
            reached += weights[i]
            if reached > target:
                break
    return chosen


@exactly
def cut(logits: ndarray, weights: ndarray, choice: Choice) -> None:
    """Set to 0 the weights (V,) of the tokens that, by their logits (V,), top_k and top_p leave out."""
    V, order = len(logits), np.argsort(logits, kind="mergesort")
    least = logits[order[V - choice.top_k]] if 0 < choice.top_k < V else -np.inf
    for i in range(V):
        if logits[i] < least:
            weights[i] = 0
    tail, limit = 0.0, (1 - choice.top_p) * total(weights)
    for i in order[: V - 1] if choice.top_p < 1 else order[:0]:
        tail += weights[i]
        if tail > limit:
            break
        weights[i] = 0


@exactly
def total(weights: ndarray) -> float:
    """The sum of the weights, in their order."""
    found = 0.0
    for weight in weights:
        found += weight
    return found

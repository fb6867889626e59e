"""One token after another through a GPT in plain loops, compiled by Numba: how text is written on a CPU.

For a single token PyTorch spends its time on the way to the arithmetic: some sixty calls of a few
microseconds each, around a network that takes a core ten. Here the whole step is one compiled function, the
choice of the next token included, and it works on a batch of one. It is model/gpt.py's function, written
out: read the two side by side. The first call compiles (Numba keeps the result on disk); `import` is the only
place where Numba is needed.

Two things keep the loops fast. Matrices are stored (inputs, outputs) and a product adds up their rows, four
at a time, so that the processor's vector units run along the outputs, and a row whose input is zero is
never read, which a ReLU makes of most. And keys and values lie (D, T) in the cache, so that they run along
the positions.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy import ndarray
from torch import nn

from minigpt.config import SamplingConfig
from minigpt.model import count_parameters
from minigpt.model.gpt import GPT
from minigpt.sampling.cached import CachedReader

CHUNK = 32  # tokens in a call from Python, which costs a few microseconds; one where each takes far longer
LARGE = 2**20  # parameters

# Sums may be taken in any order, which is what lets the compiler use vectors. Infinities stay what they are.
SUMS = {"reassoc", "contract", "nsz", "arcp"}


class Weights(NamedTuple):
    """A GPT's parameters, float32; L layers stacked, matrices (inputs, outputs). F is 4C."""

    tokens: ndarray  # (V, C)
    positions: ndarray  # (T, C)
    ln1: ndarray  # (L, 2, C), the gain and the bias
    qkv: ndarray  # (L, C, 3C)
    qkv_bias: ndarray  # (L, 3C)
    proj: ndarray  # (L, C, C)
    proj_bias: ndarray  # (L, C)
    ln2: ndarray  # (L, 2, C)
    up: ndarray  # (L, C, F)
    up_bias: ndarray  # (L, F)
    down: ndarray  # (L, F, C)
    down_bias: ndarray  # (L, C)
    ln_f: ndarray  # (2, C)
    head: ndarray  # (C, V)
    head_bias: ndarray  # (V,)


class Choice(NamedTuple):
    """How the next token is chosen: `SamplingConfig`, with 0 for a top_k and 1 for a top_p that isn't asked for."""

    temperature: float
    top_k: int
    top_p: float


def continued(
    reader: CachedReader, token: int, count: int, config: SamplingConfig, generator: torch.Generator
) -> Iterator[int]:
    """At most `count` tokens that follow `token`, until the window of what the reader has read is full.

    The reader, of one row, has read everything before `token`; afterwards it has read everything but the last.
    """
    model, length = reader.model, reader.cache.length
    weights, relu = weights_of(model), model.config.activation == "relu"
    keys, values = (torch.stack(parts)[:, 0].mT.contiguous().numpy() for parts in zip(*reader.cache.kv, strict=True))
    choice = Choice(float(config.temperature), config.top_k or 0, float(config.top_p or 1))
    end = min(length + count, model.config.block_size)
    chunk = CHUNK if count_parameters(model) < LARGE else 1
    read = [token]
    while length < end:
        uniforms = torch.rand(min(chunk, end - length), generator=generator, dtype=torch.float64).numpy()
        written = write(weights, relu, keys, values, read[-1], length, choice, uniforms).tolist()
        yield from written
        read += written
        length += len(written)
    reader.skip(torch.tensor([read[:-1]]))


def warm_up() -> None:
    """Compile, or fetch what was compiled before; raises whatever stands in the way."""
    shapes = [(1, 1), (1, 1), (1, 2, 1), (1, 1, 3), (1, 3), (1, 1, 1), (1, 1), (1, 2, 1)]
    shapes += [(1, 1, 4), (1, 4), (1, 4, 1), (1, 1), (2, 1), (1, 1), (1,)]
    weights = Weights(*(np.zeros(shape, np.float32) for shape in shapes))
    keys, values = np.zeros((2, 1, 1, 1, 1), np.float32)
    write(weights, True, keys, values, 0, 0, Choice(1.0, 0, 1.0), np.zeros(1))


def weights_of(model: GPT) -> Weights:
    """A GPT's parameters as these loops want them."""

    def stacked(path: str) -> ndarray:
        parts = [block.get_parameter(path).detach() for block in model.blocks]
        return torch.stack([p.T if p.dim() == 2 else p for p in parts]).contiguous().numpy()

    def affine(norms: list[nn.LayerNorm]) -> ndarray:
        return torch.stack([torch.stack([norm.weight, norm.bias]) for norm in norms]).detach().numpy()

    L, C = model.config.n_layer, model.config.n_embd
    tokens = model.token_embedding_table.weight.detach()
    head = model.lm_head
    return Weights(
        tokens=tokens.numpy(),
        positions=model.position_embedding_table.weight.detach().numpy(),
        ln1=affine([block.ln1 for block in model.blocks]),
        qkv=stacked("attention.qkv.weight"),
        qkv_bias=stacked("attention.qkv.bias") if model.config.qkv_bias else np.zeros((L, 3 * C), np.float32),
        proj=stacked("attention.proj.weight"),
        proj_bias=stacked("attention.proj.bias"),
        ln2=affine([block.ln2 for block in model.blocks]),
        up=stacked("ffwd.up.weight"),
        up_bias=stacked("ffwd.up.bias"),
        down=stacked("ffwd.down.weight"),
        down_bias=stacked("ffwd.down.bias"),
        ln_f=affine([model.ln_f])[0],
        head=(tokens if head is None else head.weight.detach()).T.contiguous().numpy(),
        head_bias=np.zeros(len(tokens), np.float32) if head is None else head.bias.detach().numpy(),
    )


@njit(cache=True)
def write(
    w: Weights,
    relu: bool,
    keys: ndarray,  # (L, H, D, T)
    values: ndarray,  # (L, H, D, T)
    token: int,  # not yet in the cache
    position: int,
    choice: Choice,
    uniforms: ndarray,  # (N,), a random number in [0, 1) for each token to write
) -> ndarray:
    """The N tokens (N,) that follow a token at a position; the last of them is not in the cache afterwards."""
    logits = np.empty(len(w.tokens), np.float32)
    written = np.empty(len(uniforms), np.int64)
    for n in range(len(uniforms)):
        step(w, relu, keys, values, token, position + n, logits)
        token = choose(logits, choice, uniforms[n])
        written[n] = token
    return written


@njit(cache=True, fastmath=SUMS)
def step(w: Weights, relu: bool, keys: ndarray, values: ndarray, token: int, position: int, logits: ndarray) -> None:
    """A token at a position into the cache, and out of it the logits (V,) of the next."""
    L, H, D, _ = keys.shape
    C, F = w.up.shape[1:]
    x, normed, gathered = np.empty(C, np.float32), np.empty(C, np.float32), np.empty(C, np.float32)
    qkv, hidden = np.empty(3 * C, np.float32), np.empty(F, np.float32)
    scores = np.empty(position + 1, np.float32)
    for c in range(C):
        x[c] = w.tokens[token, c] + w.positions[position, c]
    for layer in range(L):
        layer_norm(x, w.ln1[layer], normed)
        qkv[:] = w.qkv_bias[layer]
        add_product(normed, w.qkv[layer], qkv)
        for h in range(H):
            q = qkv[h * D : (h + 1) * D]
            keys[layer, h, :, position] = qkv[C + h * D : C + (h + 1) * D]
            values[layer, h, :, position] = qkv[2 * C + h * D : 2 * C + (h + 1) * D]
            attend(q, keys[layer, h], values[layer, h], scores, gathered[h * D : (h + 1) * D])
        for c in range(C):
            x[c] += w.proj_bias[layer, c]
        add_product(gathered, w.proj[layer], x)
        layer_norm(x, w.ln2[layer], normed)
        hidden[:] = w.up_bias[layer]
        add_product(normed, w.up[layer], hidden)
        if relu:
            for f in range(F):
                hidden[f] = max(hidden[f], np.float32(0))
        else:
            gelu(hidden)
        for c in range(C):
            x[c] += w.down_bias[layer, c]
        add_product(hidden, w.down[layer], x)
    layer_norm(x, w.ln_f, normed)
    logits[:] = w.head_bias
    add_product(normed, w.head, logits)


@njit(cache=True, fastmath=SUMS)
def add_product(x: ndarray, matrix: ndarray, out: ndarray) -> None:
    """Add x @ matrix to out, for (I,), (I, O) and (O,); rows of the matrix four at a time, without those times zero."""
    rows = np.empty(len(x), np.int64)
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


@njit(cache=True, fastmath=SUMS)
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


@njit(cache=True, fastmath=SUMS | {"nnan"})
def attend(q: ndarray, keys: ndarray, values: ndarray, scores: ndarray, out: ndarray) -> None:
    """What a head gathers for its query (D,) from the first len(scores) positions of keys and values (D, T)."""
    D, T = len(q), len(scores)
    for t in range(T):
        scores[t] = 0
    for d in range(D):
        scaled = q[d] / np.float32(math.sqrt(D))
        for t in range(T):
            scores[t] += scaled * keys[d, t]
    largest = scores[0]
    for t in range(T):
        largest = max(largest, scores[t])
    total = np.float32(0)
    for t in range(T):
        scores[t] = exp(scores[t] - largest)
        total += scores[t]
    for d in range(D):
        gathered = np.float32(0)
        for t in range(T):
            gathered += scores[t] * values[d, t]
        out[d] = gathered / total


@njit(cache=True, inline="always")
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


@njit(cache=True, fastmath=SUMS | {"nnan"})
def gelu(x: ndarray) -> None:
    """GPT-2's GELU in place: x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    for i in range(len(x)):
        y = np.float32(1.5957691) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
        e = exp(-abs(y))
        x[i] *= (np.float32(1) if y > 0 else e) / (np.float32(1) + e)


@njit(cache=True)
def choose(logits: ndarray, choice: Choice, uniform: float) -> int:
    """The next token from its logits (V,): `next_token` of sampling/engine.py for one row, in float64 as there."""
    if choice.temperature == 0:
        return int(np.argmax(logits))
    wide = logits.astype(np.float64)
    scaled = (wide - np.max(wide)) / choice.temperature
    if 0 < choice.top_k < len(scaled):
        kth = np.sort(scaled)[len(scaled) - choice.top_k]
        scaled = np.where(scaled < kth, -np.inf, scaled)
    weights = np.exp(scaled)
    if choice.top_p < 1:
        order = np.argsort(scaled, kind="mergesort")
        limit, tail = (1 - choice.top_p) * weights.sum(), 0.0
        for i in order[:-1]:
            tail += weights[i]
            if tail > limit:
                break
            weights[i] = 0
    cumulative = np.cumsum(weights)
    chosen = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return min(int(chosen), int(np.searchsorted(cumulative, cumulative[-1])))

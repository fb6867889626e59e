"""GPT's forward pass in loops compiled by Numba, for several windows at a time, on a CPU.

It computes the function of model/gpt.py: compare the two files. numba_training.py adds the gradients. `predict` here
computes the next token of several texts, or of one text whose window moves. numba_layers.py has the layers, and
explains the shapes.
"""

from typing import NamedTuple

from numpy import ndarray

from minigpt.kernels.numba_jit import NO_ALLOCATION, njit_cached, njit_inner
from minigpt.kernels.numba_layers import (
    RELU,
    Sizes,
    array_at,
    attend,
    attend_with_cache,
    linear,
    normalize,
    store_in_cache,
)
from minigpt.kernels.numba_matmul import BIAS, BIAS_RELU, COLUMNS, ROWS
from minigpt.kernels.numba_matvec import WIDTH
from minigpt.kernels.numba_ops import activate
from minigpt.kernels.numba_vectors import pad, skip

njit_nogil = njit_cached(**NO_ALLOCATION, nogil=True)  # two Python threads can run it at the same time

# Columns of the addresses of parameters and gradients: those of a block, and those outside of the blocks.
LN1, LN1_BIAS, QKV, QKV_BIAS, PROJ, PROJ_BIAS, LN2, LN2_BIAS, UP, UP_BIAS, DOWN, DOWN_BIAS = range(12)
TOKENS, POSITIONS, LN_F, LN_F_BIAS, HEAD, HEAD_BIAS = range(6)


class BlockLayout(NamedTuple):
    """Where the activations of a block begin, and how many numbers they take together."""

    x: int  # (R, C), the input
    moments1: int  # (R, 2), mean and 1 / standard deviation
    normed1: int  # (R, C)
    qkv: int  # (R, 3C)
    weights: int  # (W, H, T, T)
    attended: int  # (R, C)
    middle: int  # (R, C), after attention
    moments2: int  # (R, 2)
    normed2: int  # (R, C)
    up: int  # (R, F), before the activation; not used with ReLU
    hidden: int  # (R, F)
    size: int


class Layout(NamedTuple):
    """Where each part of the scratch memory begins, and how many numbers it has.

    A training keeps the activations of all blocks. A prediction uses those of one block for all, and no gradients.
    """

    head: int  # (C, V), transposed
    matrices: int  # (L, 12 C C): qkv, proj, up and down of each block, transposed
    panel: int  # of `multiply`; up to here, nothing depends on T and R
    normed: int  # (R, C), the input of the head
    moments: int  # (R, 2), of the last layer norm
    scores: int  # (T, T), gradients of one head's attention scores
    d_x: int  # (R, C)
    d_normed: int  # (R, C)
    d_hidden: int  # (R, F)
    d_qkv: int  # (R, 3C)
    d_logits: int  # (R, V)
    blocks: int  # the activations of the blocks, and after them the output of the last one
    size: int


def plan_scratch(s: Sizes, positions: int | None = None) -> tuple[Layout, BlockLayout]:
    """Lay out the scratch memory. Each part begins at a multiple of 64 bytes.

    Args:
        s: the sizes.
        positions: for `predict`, the positions that the cache has room for; for `train_windows` None.
    """
    (T, C, H, V, L, F, _, R), training = s, positions is None
    scores = R * T * H if positions is None else max(T * T, positions + WIDTH)
    block = BlockLayout(*_place(R * C, 2 * R, R * C, 3 * R * C, scores, R * C, R * C, 2 * R, R * C, R * F, R * F))
    panel = (max(R, F, V, T) + ROWS) * COLUMNS
    gradients = (T * T, R * C, R * C, R * F, 3 * R * C, R * V) if training else (0,) * 6
    blocks = (L if training else 1) * block.size + R * C
    return Layout(*_place(C * V, 12 * L * C * C, panel, R * C, 2 * R, *gradients, blocks)), block


def _place(*sizes: int) -> list[int]:
    """Return where arrays of these sizes begin, one after the other, and where the last one ends."""
    begins = [0]
    for size in sizes:
        begins.append(begins[-1] + pad(size))
    return begins


@njit_inner
def embed(s: Sizes, outer: ndarray, idx: ndarray, T: int, position: int, x: ndarray) -> None:
    """Write the sum of the embeddings of token and position to x (R, C). Windows of T tokens begin at a position."""
    for r in range(len(idx)):
        token = array_at(outer[TOKENS] + 4 * idx[r] * s.C, s.C)
        place = array_at(outer[POSITIONS] + 4 * (position + r % T) * s.C, s.C)
        for c in range(s.C):
            x[r * s.C + c] = token[c] + place[c]


@njit_inner
def compute_qkv(s: Sizes, o: BlockLayout, p: ndarray, matrices: ndarray, R: int, a: ndarray, panel: ndarray) -> None:
    """Compute the queries, keys and values of R rows.

    Args:
        s: the sizes.
        o: where the activations begin in `a`.
        p: the addresses of the block's parameters.
        matrices: its transposed matrices, qkv, proj, up and down.
        R: the number of rows.
        a: the activations; x is there already.
        panel: scratch memory of `multiply`.
    """
    C, normed = s.C, skip(a, o.normed1)
    normalize(skip(a, o.x), array_at(p[LN1], C), array_at(p[LN1_BIAS], C), R, C, normed, skip(a, o.moments1))
    linear(normed, matrices, array_at(p[QKV_BIAS], 3 * C), (R, C, 3 * C), BIAS, skip(a, o.qkv), panel)


@njit_inner
def finish_block(
    s: Sizes, o: BlockLayout, p: ndarray, matrices: ndarray, R: int, a: ndarray, out: ndarray, panel: ndarray
) -> None:
    """Compute a block from the results of its heads on, and write its result to out (R, C), which may be x."""
    C, F = s.C, s.F
    proj, up, down = skip(matrices, 3 * C * C), skip(matrices, 4 * C * C), skip(matrices, 8 * C * C)
    x, middle, normed, hidden = skip(a, o.x), skip(a, o.middle), skip(a, o.normed2), skip(a, o.hidden)
    linear(skip(a, o.attended), proj, array_at(p[PROJ_BIAS], C), (R, C, C), BIAS, middle, panel)
    for i in range(R * C):
        middle[i] += x[i]
    normalize(middle, array_at(p[LN2], C), array_at(p[LN2_BIAS], C), R, C, normed, skip(a, o.moments2))
    if s.activation == RELU:
        linear(normed, up, array_at(p[UP_BIAS], F), (R, C, F), BIAS_RELU, hidden, panel)
    else:
        linear(normed, up, array_at(p[UP_BIAS], F), (R, C, F), BIAS, skip(a, o.up), panel)
        for i in range(R * F):
            hidden[i] = a[o.up + i]
        activate(a[o.hidden : o.hidden + R * F], s.activation)
    linear(hidden, down, array_at(p[DOWN_BIAS], C), (R, F, C), BIAS, out, panel)
    for i in range(R * C):
        out[i] += middle[i]


@njit_inner
def keep_last_rows(x: ndarray, windows: int, T: int, kept: int, C: int) -> None:
    """Move the last rows of each window of x (W * T, C) to the front: (W * kept, C)."""
    for w in range(windows):
        last, result = skip(x, ((w + 1) * T - kept) * C), skip(x, w * kept * C)
        for i in range(kept * C):
            result[i] = last[i]


@njit_inner
def _find_head(n: int, s: Sizes, place: tuple[int, int, int], cache: tuple[int, int, int, int]) -> tuple[int, int, int]:
    """Return the position of a row and the addresses of the keys and values of one of its heads.

    Args:
        n: the number of the head, counted through all rows.
        s: the sizes.
        place: the layer, the number of texts, and the first text of the rows.
        cache: see `predict`.
    """
    (layer, texts, first), (position, keys, values, capacity) = place, cache
    D, row = s.C // s.H, n // s.H
    head = (layer * texts + first + row // s.T) * s.H + n % s.H
    return position + row % s.T, keys + 4 * head * D * pad(capacity, WIDTH), values + 4 * head * capacity * pad(D)


@njit_inner
def attend_rows(
    s: Sizes,
    o: BlockLayout,
    R: int,
    place: tuple[int, int, int],
    cache: tuple[int, int, int, int],
    a: ndarray,
    panel: ndarray,
) -> None:
    """Store the keys and values of R rows in the cache, if there is one, and compute the results of their heads.

    Args:
        s: the sizes.
        o: where the activations begin in `a`.
        R: the number of rows.
        place: see `_find_head`.
        cache: see `predict`.
        a: the activations; the queries, keys and values are there already.
        panel: scratch memory of `multiply`.
    """
    C, D, (position, keys, _, _) = s.C, s.C // s.H, cache
    qkv, attended, weights = skip(a, o.qkv), skip(a, o.attended), skip(a, o.weights)
    for n in range(R * s.H if keys else 0):
        own, q = _find_head(n, s, place, cache), skip(qkv, n // s.H * 3 * C + n % s.H * D)
        store_in_cache(skip(q, C), skip(q, 2 * C), own, D)
        if position > 0:
            attend_with_cache(q, own, D, weights, skip(attended, n * D))
    if position == 0:
        attend(qkv, s, R // s.T, weights, 0, attended, panel)


@njit_nogil
def predict(
    s: Sizes,
    m: Layout,
    o: BlockLayout,
    outer: ndarray,
    blocks: ndarray,
    idx: ndarray,
    cache: tuple[int, int, int, int],
    logits: ndarray,
    scratch: ndarray,
) -> None:
    """Read T tokens of each of W texts, and compute the logits (W, V) of the token that follows them.

    Args:
        s: the sizes.
        m: the layout of the scratch memory.
        o: the layout of a block's activations.
        outer: the addresses of the parameters outside of the blocks, (6,).
        blocks: the addresses of the blocks' parameters, (L, 12).
        idx: the tokens, text after text, (W * T,).
        cache: the position of the first tokens; the addresses of the keys (L, W, H, S / WIDTH, D, WIDTH) and of the
            values (L, W, H, capacity, E), see `attend_with_cache`; and the positions that they have room for. They get
            the new keys and values. The position is 0, or T is 1. Without keys (0), nothing is stored.
        logits: receives the logits.
        scratch: `m.size` numbers. The transposed matrices are there already.
    """
    C, V, T = s.C, s.V, s.T
    panel, normed, moments = skip(scratch, m.panel), skip(scratch, m.normed), skip(scratch, m.moments)
    a, texts = skip(scratch, m.blocks), len(idx) // T
    for first in range(0, len(idx), s.R):
        R = min(s.R, len(idx) - first)
        embed(s, outer, idx[first : first + R], T, cache[0], a)
        for layer in range(s.L):
            matrices, place = skip(scratch, m.matrices + layer * 12 * C * C), (layer, texts, first // T)
            compute_qkv(s, o, blocks[layer], matrices, R, a, panel)
            attend_rows(s, o, R, place, cache, a, panel)
            if layer == s.L - 1:
                R //= T
                keep_last_rows(a, R, T, 1, C)
                keep_last_rows(skip(a, o.attended), R, T, 1, C)
            finish_block(s, o, blocks[layer], matrices, R, a, a, panel)
        normalize(a, array_at(outer[LN_F], C), array_at(outer[LN_F_BIAS], C), R, C, normed, moments)
        result = skip(logits, first // T * V)
        linear(normed, skip(scratch, m.head), array_at(outer[HEAD_BIAS], V), (R, C, V), BIAS, result, panel)

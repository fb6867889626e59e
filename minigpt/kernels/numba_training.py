"""Loss and gradients of GPT in loops compiled by Numba, for training on a CPU.

For a small model, PyTorch spends a third of a training step outside the arithmetic: some two hundred calls of a few
microseconds each, on tensors that leave the processor's cache between them. Here one compiled function takes some
windows of a batch through the model and back. The forward pass is that of numba_forward.py. The gradients follow it
line by line, from the last to the first. The tests compare both with autograd.
"""

from numpy import ndarray

from minigpt.kernels.numba_forward import (
    DOWN,
    DOWN_BIAS,
    HEAD,
    HEAD_BIAS,
    LN1,
    LN1_BIAS,
    LN2,
    LN2_BIAS,
    LN_F,
    LN_F_BIAS,
    POSITIONS,
    PROJ,
    PROJ_BIAS,
    QKV,
    QKV_BIAS,
    TOKENS,
    UP,
    UP_BIAS,
    BlockLayout,
    Layout,
    compute_qkv,
    embed,
    finish_block,
    njit_nogil,
)
from minigpt.kernels.numba_jit import njit_inner
from minigpt.kernels.numba_layers import (
    Sizes,
    activate_backward,
    array_at,
    attend,
    attend_backward,
    compute_cross_entropy,
    linear,
    linear_backward,
    normalize,
    normalize_backward,
    transpose,
)
from minigpt.kernels.numba_matmul import BIAS
from minigpt.kernels.numba_vectors import skip


@njit_inner
def _backward_block(
    s: Sizes, o: BlockLayout, m: Layout, p: ndarray, g: ndarray, windows: int, a: ndarray, scratch: ndarray
) -> None:
    """Turn d_x, the gradient of a block's result, into that of its input, and add the gradients of its parameters.

    Args:
        s: the sizes.
        o: where the activations begin in `a`.
        m: where d_x and the other gradients begin in `scratch`.
        p: the addresses of the block's parameters.
        g: the addresses of their gradients.
        windows: the number of windows.
        a: the activations.
        scratch: the scratch memory.
    """
    C, F, R = s.C, s.F, windows * s.T
    panel, d_x, d_normed = skip(scratch, m.panel), skip(scratch, m.d_x), skip(scratch, m.d_normed)
    d_hidden, d_qkv, hidden, middle = (
        skip(scratch, m.d_hidden),
        skip(scratch, m.d_qkv),
        skip(a, o.hidden),
        skip(a, o.middle),
    )
    # computation
    d_down, d_down_bias = array_at(g[DOWN], C * F), array_at(g[DOWN_BIAS], C)
    linear_backward(d_x, hidden, array_at(p[DOWN], C * F), (R, F, C), d_hidden, d_down, d_down_bias, panel)
    activate_backward(d_hidden, skip(a, o.up), hidden, R * F, s.activation)
    d_up, d_up_bias, normed = array_at(g[UP], F * C), array_at(g[UP_BIAS], F), skip(a, o.normed2)
    linear_backward(d_hidden, normed, array_at(p[UP], F * C), (R, C, F), d_normed, d_up, d_up_bias, panel)
    d_gain, d_bias, moments = array_at(g[LN2], C), array_at(g[LN2_BIAS], C), skip(a, o.moments2)
    normalize_backward(d_normed, middle, moments, array_at(p[LN2], C), (R, C), d_x, d_gain, d_bias)
    # communication
    d_proj, d_proj_bias, attended = array_at(g[PROJ], C * C), array_at(g[PROJ_BIAS], C), skip(a, o.attended)
    linear_backward(d_x, attended, array_at(p[PROJ], C * C), (R, C, C), d_normed, d_proj, d_proj_bias, panel)
    attend_backward(d_normed, skip(a, o.qkv), skip(a, o.weights), s, windows, d_qkv, skip(scratch, m.scores), panel)
    d_weight, d_qkv_bias, normed = array_at(g[QKV], 3 * C * C), array_at(g[QKV_BIAS], 3 * C), skip(a, o.normed1)
    linear_backward(d_qkv, normed, array_at(p[QKV], 3 * C * C), (R, C, 3 * C), d_normed, d_weight, d_qkv_bias, panel)
    d_gain, d_bias, moments = array_at(g[LN1], C), array_at(g[LN1_BIAS], C), skip(a, o.moments1)
    normalize_backward(d_normed, skip(a, o.x), moments, array_at(p[LN1], C), (R, C), d_x, d_gain, d_bias)


@njit_inner
def _transpose_matrices(s: Sizes, m: Layout, outer: ndarray, blocks: ndarray, scratch: ndarray) -> None:
    """Write the transposes of all matrices, which the forward pass reads, to the scratch memory."""
    C, F = s.C, s.F
    transpose(array_at(outer[HEAD], s.V * C), s.V, C, skip(scratch, m.head))
    for layer in range(s.L):
        p, matrices = blocks[layer], skip(scratch, m.matrices + layer * 12 * C * C)
        transpose(array_at(p[QKV], 3 * C * C), 3 * C, C, matrices)
        transpose(array_at(p[PROJ], C * C), C, C, skip(matrices, 3 * C * C))
        transpose(array_at(p[UP], F * C), F, C, skip(matrices, 4 * C * C))
        transpose(array_at(p[DOWN], C * F), C, F, skip(matrices, 8 * C * C))


@njit_inner
def _embed_backward(s: Sizes, d_outer: ndarray, idx: ndarray, d_x: ndarray) -> None:
    """Add the gradients of both embeddings from that of their sum (R, C)."""
    for r in range(len(idx)):
        d_token = array_at(d_outer[TOKENS] + 4 * idx[r] * s.C, s.C)
        d_position = array_at(d_outer[POSITIONS] + 4 * (r % s.T) * s.C, s.C)
        for c in range(s.C):
            d_token[c] += d_x[r * s.C + c]
            d_position[c] += d_x[r * s.C + c]


@njit_nogil
def train_windows(
    s: Sizes,
    m: Layout,
    o: BlockLayout,
    outer: ndarray,
    blocks: ndarray,
    d_outer: ndarray,
    d_blocks: ndarray,
    idx: ndarray,
    targets: ndarray,
    weight: float,
    logits: ndarray,
    scratch: ndarray,
) -> float:
    """Compute the loss of some windows, and add the gradients of the parameters.

    Args:
        s: the sizes.
        m: the layout of the scratch memory.
        o: the layout of a block's activations.
        outer: the addresses of the parameters outside of the blocks, (6,).
        blocks: the addresses of the blocks' parameters, (L, 12).
        d_outer: the addresses of their gradients, (6,).
        d_blocks: the same for the blocks, (L, 12).
        idx: ids, window after window.
        targets: the id that follows each of them; a target below 0 has no loss.
        weight: what each loss is multiplied by before it adds to the gradients.
        logits: receives the logits, (len(idx), V).
        scratch: `m.size` numbers.

    Returns:
        The sum of the losses in nats.
    """
    T, C, V, L = s.T, s.C, s.V, s.L
    panel, d_x, d_normed, activations = (
        skip(scratch, m.panel),
        skip(scratch, m.d_x),
        skip(scratch, m.d_normed),
        skip(scratch, m.blocks),
    )
    normed, moments, d_logits = skip(scratch, m.normed), skip(scratch, m.moments), skip(scratch, m.d_logits)
    head, last = skip(scratch, m.head), skip(activations, L * o.size)
    _transpose_matrices(s, m, outer, blocks, scratch)
    loss = 0.0
    for first in range(0, len(idx), s.R):
        R = min(s.R, len(idx) - first)
        windows = R // T
        embed(s, outer, idx[first : first + R], T, 0, activations)
        for layer in range(L):
            matrices, a = skip(scratch, m.matrices + layer * 12 * C * C), skip(activations, layer * o.size)
            compute_qkv(s, o, blocks[layer], matrices, R, a, panel)
            attend(skip(a, o.qkv), s, windows, skip(a, o.weights), T * T, skip(a, o.attended), panel)
            finish_block(s, o, blocks[layer], matrices, R, a, skip(a, o.size), panel)
        normalize(last, array_at(outer[LN_F], C), array_at(outer[LN_F_BIAS], C), R, C, normed, moments)
        result = skip(logits, first * V)
        linear(normed, head, array_at(outer[HEAD_BIAS], V), (R, C, V), BIAS, result, panel)
        loss += compute_cross_entropy(result, targets[first : first + R], V, weight, d_logits)

        d_head, d_head_bias = array_at(d_outer[HEAD], V * C), array_at(d_outer[HEAD_BIAS], V)
        linear_backward(d_logits, normed, array_at(outer[HEAD], V * C), (R, C, V), d_normed, d_head, d_head_bias, panel)
        for i in range(R * C):
            d_x[i] = 0
        d_gain, d_bias = array_at(d_outer[LN_F], C), array_at(d_outer[LN_F_BIAS], C)
        normalize_backward(d_normed, last, moments, array_at(outer[LN_F], C), (R, C), d_x, d_gain, d_bias)
        for layer in range(L - 1, -1, -1):
            a = skip(activations, layer * o.size)
            _backward_block(s, o, m, blocks[layer], d_blocks[layer], windows, a, scratch)
        _embed_backward(s, d_outer, idx[first : first + R], d_x)
    return loss

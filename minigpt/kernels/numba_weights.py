"""GPT's weights in the order in which the compiled loops read them, for generating one token after another."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.kernels.numba_matvec import FLOAT32, HAS_NF4, INT8, NF4, WIDTH, pack_matrix, pack_nf4
from minigpt.kernels.numba_ops import ACTIVATIONS, create_zeros
from minigpt.kernels.numba_vectors import COLUMNS, pad
from minigpt.kernels.plain_model import get_bias, get_weight, list_linear_layers
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import KVCache
from minigpt.model.nf4 import BLOCK, dequantize_absmax
from minigpt.model.quantization import Linear4bit, Linear8bit

# Columns of the addresses of a block's weights, and of the weights outside of the blocks.
LN1, QKV, QKV_AFFINE, PROJ, PROJ_AFFINE, LN2, UP, UP_AFFINE, DOWN, DOWN_AFFINE = range(10)
TOKENS, POSITIONS, LN_F, HEAD, HEAD_AFFINE = range(5)

MIN_NF4_WEIGHTS = 2**20  # in the blocks; fewer stay in the processor's cache as float32, which is faster


class Shape(NamedTuple):
    """The sizes of a model, the kinds of its matrices, and the number of its activation in ACTIVATIONS."""

    T: int
    C: int
    H: int
    V: int
    L: int
    P: int  # parts of each layer
    kind: int  # of the matrices in the blocks, see numba_matvec.py
    head_kind: int
    activation: int


class Weights(NamedTuple):
    """The addresses of the weights.

    Each of the L layers is split into P parts. A part of qkv and of up has some of their columns, a part of proj and
    of down the rows that belong to these columns. The result of a product is multiplied by the first row of its
    affine (2, O), and the second row is added. For float32 and NF4 these are ones and the bias, for int8 the scales
    and the bias. The affines of proj and of down follow the sum of the parts.
    """

    shape: Shape
    outer: ndarray  # (P, 5), int64
    blocks: ndarray  # (L, P, 10), int64
    tensors: list[Tensor]  # what the addresses point to


class _Matrix(NamedTuple):
    """A matrix of a linear layer."""

    numbers: Tensor  # (O, I): float32, or the codes of int8; of NF4 (O, I / 2)
    absmax: Tensor | None  # (O, I / BLOCK), of NF4
    affine: Tensor  # (2, O)

    def pack(self, outputs: Tensor | slice = slice(None), inputs: slice | None = None) -> Tensor:
        """Return a part of the matrix in the order in which the loops read it. NF4 needs whole blocks of inputs."""
        numbers = self.numbers[outputs]
        if self.absmax is None:
            return pack_matrix(numbers if inputs is None else numbers[:, inputs])
        absmax = self.absmax[outputs]
        if inputs is not None:
            numbers = numbers[:, inputs.start // 2 : inputs.stop // 2]
            absmax = absmax[:, inputs.start // BLOCK : inputs.stop // BLOCK]
        return pack_nf4(numbers, absmax)


@torch.no_grad()
def extract_weights(model: GPT, parts: int = 1) -> Weights:
    """Return a GPT's weights for the loops.

    Matrices that are all in int8 or in NF4 stay so. Others are dequantized, and adapters are added to them.

    Args:
        model: a GPT in float32 on a CPU.
        parts: P, the number of parts of each layer; it divides n_head.
    """
    config, kind = model.config, _choose_kind(model, parts)
    C, H, V = config.n_embd, config.n_head, config.vocab_size
    own, width = C // parts, pad(-(-V // parts))  # columns of a part in a layer, and in the logits
    by_head = torch.arange(3 * C).view(3, H, C // H).transpose(0, 1).flatten()  # each head's queries, keys and values
    tensors: list[Tensor] = []

    def keep(tensor: Tensor) -> int:
        """Return the address of a tensor, which stays in memory."""
        tensors.append(tensor.contiguous())
        return tensors[-1].data_ptr()

    def keep_norm(norm: nn.LayerNorm) -> int:
        return keep(torch.stack([norm.weight, norm.bias]))

    blocks = np.empty((config.n_layer, parts, DOWN_AFFINE + 1), np.int64)
    for block, addresses in zip(model.blocks, blocks, strict=True):
        qkv, proj, up, down = (_read_matrix(layer, kind) for layer in list_linear_layers(block))
        addresses[:, LN1], addresses[:, LN2] = keep_norm(block.ln1), keep_norm(block.ln2)
        addresses[:, PROJ_AFFINE], addresses[:, DOWN_AFFINE] = keep(proj.affine), keep(down.affine)
        for part, p in enumerate(addresses):
            inner = slice(own * part, own * (part + 1))
            hidden = slice(4 * inner.start, 4 * inner.stop)
            heads = by_head[3 * inner.start : 3 * inner.stop]
            p[QKV], p[QKV_AFFINE] = keep(qkv.pack(heads)), keep(qkv.affine[:, heads])
            p[UP], p[UP_AFFINE] = keep(up.pack(hidden)), keep(up.affine[:, hidden])
            p[PROJ], p[DOWN] = keep(proj.pack(inputs=inner)), keep(down.pack(inputs=hidden))

    table, lm_head = model.token_embedding_table.weight.detach(), model.lm_head
    if lm_head is None:
        head = _Matrix(table, None, torch.stack([table.new_ones(V), table.new_zeros(V)]))
    else:
        head = _read_matrix(lm_head, INT8 if kind == INT8 else FLOAT32)
    outer = np.empty((parts, HEAD_AFFINE + 1), np.int64)
    outer[:, TOKENS], outer[:, POSITIONS] = keep(table), keep(model.position_embedding_table.weight.detach())
    outer[:, LN_F] = keep_norm(model.ln_f)
    for part, p in enumerate(outer):
        outputs = slice(width * part, width * (part + 1))
        p[HEAD], p[HEAD_AFFINE] = keep(head.pack(outputs)), keep(head.affine[:, outputs])
    head_kind = INT8 if head.numbers.dtype == torch.int8 else FLOAT32
    activation = ACTIVATIONS.index(config.activation)
    shape = Shape(config.block_size, C, H, V, config.n_layer, parts, int(kind), int(head_kind), activation)
    return Weights(shape, outer, blocks, tensors)


def _choose_kind(model: GPT, parts: int) -> np.int64:
    """Return the kind of the matrices in the blocks."""
    kinds, C = {type(layer) for block in model.blocks for layer in list_linear_layers(block)}, model.config.n_embd
    if kinds == {Linear8bit}:
        return INT8
    is_large = 12 * model.config.n_layer * C**2 >= MIN_NF4_WEIGHTS
    return NF4 if kinds == {Linear4bit} and is_large and C % (BLOCK * parts) == 0 and HAS_NF4 else FLOAT32


def _read_matrix(layer: Any, kind: np.int64) -> _Matrix:
    """Read a linear layer."""
    bias, scale, absmax = get_bias(layer), None, None
    if kind == INT8:
        numbers, scale = layer.codes, layer.scale
    elif kind == NF4:
        numbers = layer.codes.view(layer.out_features, -1)
        absmax = dequantize_absmax(layer.absmax, layer.absmax_largest, layer.absmax_mean).view(len(numbers), -1)
    else:
        numbers = get_weight(layer)  # an adapter drops inputs in training only
    zeros = create_zeros(len(numbers))
    affine = torch.stack([zeros + 1 if scale is None else scale, zeros if bias is None else bias])
    return _Matrix(numbers, absmax, affine)


def copy_cache(cache: KVCache, rows: slice, T: int) -> tuple[Tensor, Tensor]:
    """Copy the cached keys and values of some rows W, with room for T positions.

    Returns:
        Keys (L, W, H, S / WIDTH, D, WIDTH), where S is T up to a multiple of WIDTH, and values (L, W, H, T, E), where E
        is D up to a multiple of COLUMNS.
    """
    stored = torch.stack(cache.keys_and_values())[:, :, rows]  # (L, 2, W, H, length, D)
    keys, values = stored.unbind(1)
    keys = F.pad(keys, (0, 0, 0, pad(T, WIDTH) - cache.length)).unflatten(3, (-1, WIDTH)).mT
    values = F.pad(values, (0, -values.shape[4] % COLUMNS, 0, T - cache.length))
    return keys.contiguous(), values.contiguous()

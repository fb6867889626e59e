"""GPT's weights as the arrays that the compiled loops read."""

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import torch
from numpy import ndarray
from torch import Tensor, nn

from minigpt.model.gpt import GPT
from minigpt.model.quantization import Linear8bit

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

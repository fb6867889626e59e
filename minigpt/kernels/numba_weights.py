"""GPT's weights as the arrays that the compiled loops read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from numpy import ndarray
from torch import Tensor, nn

from minigpt.kernels.plain_gpt import get_bias, get_weight, list_linear_layers
from minigpt.model.gpt import GPT
from minigpt.model.quantization import Linear8bit


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


@torch.no_grad()
def extract_weights(model: GPT, parts: int = 1, full: bool = False) -> Weights:
    """Return a GPT's parameters as arrays for the loops.

    Matrices that are all in int8 stay so. Others are dequantized, and adapters are added to them.

    Args:
        model: a GPT in float32 on a CPU.
        parts: P, the number of parts of each layer; it divides n_head.
        full: whether to dequantize matrices in int8 too.
    """
    C, H, V = model.config.n_embd, model.config.n_head, model.config.vocab_size
    by_head = torch.arange(3 * C).view(3, H, C // H).transpose(0, 1).flatten()
    padded = torch.cat([torch.arange(V), torch.zeros(-V % parts, dtype=torch.int64)])
    int8 = not full and all(isinstance(layer, Linear8bit) for layer in list_linear_layers(model))

    def columns(layers: Sequence[Any], outputs: Tensor | slice = slice(None)) -> tuple[ndarray, ndarray]:
        """Return matrices (L, P, I, O / P) and affines (L, P, 2, O / P)."""
        stacked = (
            torch.stack(tensors)[..., outputs] for tensors in zip(*(_read(x, int8) for x in layers), strict=True)
        )
        first, second = (x.unflatten(2, (parts, -1)).transpose(1, 2).contiguous() for x in stacked)
        return first.numpy(), second.numpy()

    def rows(layers: Sequence[Any]) -> tuple[ndarray, ndarray]:
        """Return matrices (L, P, I / P, O) and affines (L, 2, O), which follow the sum of the products."""
        matrices, affines = (torch.stack(tensors) for tensors in zip(*(_read(x, int8) for x in layers), strict=True))
        return matrices.unflatten(1, (parts, -1)).contiguous().numpy(), affines.numpy()

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


def _read(layer: Any, int8: bool) -> tuple[Tensor, Tensor]:
    """Return a linear layer's transposed matrix (I, O), and its affine (2, O)."""
    is_int8, bias = int8 and isinstance(layer, Linear8bit), get_bias(layer)
    matrix = layer.codes if is_int8 else get_weight(layer)  # an adapter drops inputs in training only
    scale = layer.scale if is_int8 else torch.ones(len(matrix))
    return matrix.T, torch.stack([scale, torch.zeros(len(matrix)) if bias is None else bias])

"""Exercise 21: NF4."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randn
from minigpt.learn.outcomes import name_parts
from minigpt.model.nf4 import NF4_LEVELS

BLOCK = 64

TEXT = """
A weight in float32 takes 32 bits. NF4 takes four: each weight becomes the number of one of 16 levels. The levels lie
from -1 to 1, close together near 0, because most weights are near 0.

    1. flatten the tensor row by row, and cut it into blocks of 64 numbers (fill up the last one with zeros)
    2. absmax: the largest number of each block without its sign, the largest magnitude
    3. divide each block by its absmax: now all numbers are from -1 to 1
    4. replace each number by the number (0 to 15) of the nearest level

    block  0.5 -2.0  0.1 ...     absmax 2.0
    scaled 0.25 -1.0 0.05 ...    levels 10 (0.246), 0 (-1.0), 8 (0.0796; 0.05 is closer to it than to 0) ...

`dequantize` goes back: level times absmax. The values are close to the old ones, not equal. A block of zeros has the
absmax 0; do not divide by it.
"""

EXPERIMENT = """
torch.manual_seed(0)
weight = 0.02 * torch.randn(128, 128)
numbers, absmax = quantize(weight)
back = dequantize(numbers, absmax, weight.shape)
for before, after in zip(weight[0, :4].tolist(), back[0, :4].tolist()):
    print(f"{before:.4f} becomes {after:.4f}")
print(f"mean error {(weight - back).abs().mean().item():.5f}, mean magnitude {weight.abs().mean().item():.5f}")
counts = torch.bincount(numbers.flatten().long(), minlength=16).tolist()
for level, count in zip(NF4_LEVELS, counts):
    print(f"{level:>7.3f} {'#' * (count // 40)}")
"""


def quantize(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Replace each number by the number of its nearest level.

    Args:
        tensor: n numbers in any shape.

    Returns:
        Level numbers from 0 to 15, (blocks, 64), whole numbers of any type; and the absmax of each block, (blocks,).
        Zeros fill up the last block.
    """
    levels = torch.tensor(NF4_LEVELS)
    flat = tensor.flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    absmax = blocks.abs().amax(dim=1)
    scaled = blocks / absmax.where(absmax > 0, 1.0)[:, None]
    return (scaled[:, :, None] - levels).abs().argmin(dim=-1), absmax


def dequantize(numbers: Tensor, absmax: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the values that the level numbers stand for.

    Args:
        numbers: level numbers (blocks, 64).
        absmax: (blocks,).
        shape: the shape of the tensor; the numbers that fill up the last block are left out.

    Returns:
        The tensor of this shape.
    """
    values = torch.tensor(NF4_LEVELS)[numbers.long()] * absmax[:, None]
    return values.flatten()[: torch.Size(shape).numel()].view(shape)


def _quantize(my: Any, tensor: Tensor) -> Any:
    """Return the level numbers, whatever their type, and the absmax."""
    parts = name_parts("quantize", my.quantize(tensor.clone()), "the level numbers", "the absmax")
    numbers = parts["the level numbers"]
    if isinstance(numbers, Tensor) and not numbers.is_floating_point():
        parts["the level numbers"] = numbers.long()
    return parts


def _dequantize(my: Any, *shape: int) -> Tensor:
    """Dequantize known numbers."""
    count = -(-torch.Size(shape).numel() // BLOCK)
    numbers = torch.arange(count * BLOCK).view(count, BLOCK) * 7 % 16
    return my.dequantize(numbers.to(torch.uint8), torch.arange(1, count + 1) / 2, shape)


def _quantizer(
    make_blocks: Callable[[Tensor], Tensor] = lambda t: F.pad(t.flatten(), (0, -t.numel() % BLOCK)).view(-1, BLOCK),
    measure: Callable[[Tensor], Tensor] = lambda blocks: blocks.abs().amax(dim=1),
    find: Callable[[Tensor, Tensor], Tensor] = lambda x, levels: (x[:, :, None] - levels).abs().argmin(dim=-1),
    is_safe: bool = True,
) -> dict[str, Any]:
    """Return a quantization with one step exchanged."""

    def quantize(tensor: Tensor) -> tuple[Tensor, Tensor]:
        blocks = make_blocks(tensor)
        absmax = measure(blocks)
        divisor = absmax.where(absmax != 0, 1.0) if is_safe else absmax
        return find(blocks / divisor[:, None], torch.tensor(NF4_LEVELS)), absmax

    return {"quantize": quantize}


def _down_the_columns(tensor: Tensor) -> Tensor:
    flat = (tensor.T if tensor.dim() == 2 else tensor).flatten()
    return F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


def _interleaved_blocks(tensor: Tensor) -> Tensor:
    flat = F.pad(tensor.flatten(), (0, -tensor.numel() % BLOCK))
    return flat.view(BLOCK, -1).T


def _without_rest(tensor: Tensor) -> Tensor:
    return tensor.flatten()[: tensor.numel() // BLOCK * BLOCK].view(-1, BLOCK)


def _without_absmax(numbers: Tensor, absmax: Tensor, shape: Any) -> Tensor:
    return dequantize(numbers, torch.ones_like(absmax), shape)


def _first_absmax(numbers: Tensor, absmax: Tensor, shape: Any) -> Tensor:
    return dequantize(numbers, absmax[:1].expand(len(absmax)), shape)


def _evenly_spaced(numbers: Tensor, absmax: Tensor, shape: Any) -> Tensor:
    values = (numbers.float() / 7.5 - 1) * absmax[:, None]
    return values.flatten()[: torch.Size(shape).numel()].view(shape)


def _get_values(numbers: Tensor, factor: Tensor) -> Tensor:
    return torch.tensor(NF4_LEVELS)[numbers.long()] * factor


def _cut(values: Tensor, shape: Any) -> Tensor:
    return values.flatten()[: torch.Size(shape).numel()].view(shape)


def _numbers_times_absmax(numbers: Tensor, absmax: Tensor, shape: Any) -> Tensor:
    return _cut(numbers * absmax[:, None], shape)


def _divided_by_absmax(numbers: Tensor, absmax: Tensor, shape: Any) -> Tensor:
    return _cut(_get_values(numbers, 1 / absmax[:, None]), shape)


def _absmax_as_column(tensor: Tensor) -> Any:
    numbers, absmax = quantize(tensor)
    return numbers, absmax[:, None]


def _flat_numbers(tensor: Tensor) -> Any:
    numbers, absmax = quantize(tensor)
    return numbers.flatten(), absmax


ZEROS_AND_MORE = torch.cat([torch.zeros(64), randn(64, seed=2)])

EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F\n\n"
    "from minigpt.model.nf4 import NF4_LEVELS\n\nBLOCK = 64",
    references=(quantize, dequantize),
    cases=(
        Case("quantize(a tensor of 64 numbers)", lambda my: _quantize(my, randn(64))),
        Case("quantize(a tensor of shape (4, 32))", lambda my: _quantize(my, randn(4, 32, seed=1))),
        Case("quantize(a tensor of shape (6, 64))", lambda my: _quantize(my, 0.1 * randn(6, 64, seed=1))),
        Case("quantize(64 zeros and 64 other numbers)", lambda my: _quantize(my, ZEROS_AND_MORE)),
        Case("quantize(a tensor of shape (3, 50))", lambda my: _quantize(my, randn(3, 50, seed=3))),
        Case("dequantize(numbers (1, 64), absmax [0.5], (64,))", lambda my: _dequantize(my, 64)),
        Case("dequantize(numbers (3, 64), absmax [0.5, 1, 1.5], (3, 50))", lambda my: _dequantize(my, 3, 50)),
    ),
    mistakes=tuple(
        Mistake(when, variants)
        for when, variants in (
            ("the blocks go down the columns: flatten row by row", _quantizer(make_blocks=_down_the_columns)),
            (
                "a block takes every n-th number instead of 64 adjacent ones: view(-1, 64) instead of view(64, -1)",
                _quantizer(make_blocks=_interleaved_blocks),
            ),
            (
                "one absmax is used for the whole tensor instead of one for each block",
                _quantizer(measure=lambda blocks: blocks.abs().amax().expand(len(blocks))),
            ),
            (
                "the largest number is used instead of the largest magnitude: abs is missing",
                _quantizer(measure=lambda blocks: blocks.amax(dim=1)),
            ),
            (
                "the blocks are divided by their standard deviation instead of absmax",
                _quantizer(measure=lambda blocks: blocks.std(dim=1)),
            ),
            ("the mean magnitude is used instead of the largest", _quantizer(measure=lambda b: b.abs().mean(dim=1))),
            (
                "the next higher level is taken instead of the nearest",
                _quantizer(find=lambda x, levels: torch.bucketize(x, levels)),
            ),
            (
                "the levels are taken as evenly spaced, and NF4's are not",
                _quantizer(find=lambda x, levels: ((x + 1) * 7.5).round().long()),
            ),
            ("a block of zeros is divided by its absmax 0", _quantizer(is_safe=False)),
            (
                "the levels themselves are returned, instead of their numbers 0 to 15",
                _quantizer(find=lambda x, levels: levels[(x[:, :, None] - levels).abs().argmin(dim=-1)]),
            ),
            (
                "the difference has a sign, so that the largest level is always nearest: abs is missing",
                _quantizer(find=lambda x, levels: (x[:, :, None] - levels).argmin(dim=-1)),
            ),
            (
                "64 zeros are added where nothing is missing: fill up by -len(flat) % BLOCK",
                _quantizer(make_blocks=lambda t: F.pad(t.flatten(), (0, BLOCK - t.numel() % BLOCK)).view(-1, BLOCK)),
            ),
            (
                "the zeros are put before the numbers instead of after them",
                _quantizer(make_blocks=lambda t: F.pad(t.flatten(), (-t.numel() % BLOCK, 0)).view(-1, BLOCK)),
            ),
            (
                "the last block is not filled up with zeros",
                _quantizer(make_blocks=lambda t: t.flatten().view(-1, BLOCK)),
            ),
            ("absmax has the shape (blocks, 1) instead of (blocks,)", {"quantize": _absmax_as_column}),
            ("the level numbers are one row instead of (blocks, 64)", {"quantize": _flat_numbers}),
            (
                "dequantize multiplies the level numbers with absmax, instead of the levels",
                {"dequantize": _numbers_times_absmax},
            ),
            (
                "dequantize keeps the zeros that filled up the last block: cut them off before view",
                {"dequantize": lambda numbers, absmax, shape: _get_values(numbers, absmax[:, None]).view(shape)},
            ),
            (
                "absmax (blocks,) is multiplied along the rows: make it a column with absmax[:, None]",
                {"dequantize": lambda numbers, absmax, shape: _cut(_get_values(numbers, absmax), shape)},
            ),
            (
                "dequantize returns one row of numbers instead of the shape",
                {"dequantize": lambda numbers, absmax, shape: dequantize(numbers, absmax, shape).flatten()},
            ),
            ("dequantize divides by absmax instead of multiplying", {"dequantize": _divided_by_absmax}),
            ("the numbers after the last whole block are lost", _quantizer(make_blocks=_without_rest)),
            ("the values are not multiplied by absmax in dequantize", {"dequantize": _without_absmax}),
            ("dequantize uses the first absmax for all blocks", {"dequantize": _first_absmax}),
            ("dequantize takes the levels as evenly spaced", {"dequantize": _evenly_spaced}),
        )
    ),
    hints=(
        "F.pad(flat, (0, -len(flat) % BLOCK)) fills up with zeros. Then .view(-1, BLOCK) has a row for each block.",
        "Nearest: (scaled[:, :, None] - levels).abs().argmin(dim=-1), with levels = torch.tensor(NF4_LEVELS).",
        "absmax.where(absmax > 0, 1.0) replaces zeros by ones before the division. dequantize: levels[numbers.long()] "
        "* absmax[:, None], flattened, cut and viewed in the shape.",
    ),
    experiment=EXPERIMENT,
)

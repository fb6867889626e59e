"""NF4: a tensor in four bits a number, as QLoRA keeps the weights of a frozen model (Dettmers et al. 2023).

The weights of a trained matrix are nearly normally distributed, so the 16 levels of NF4 lie where a normal distribution
has its mass: each is the nearest level of about equally many weights. A tensor is cut into blocks of 64 numbers. Each
block is divided by its largest magnitude, its absmax, and each number becomes the number of the nearest level. Two
level numbers fill a byte. An absmax in float32 costs half a bit for each number. Stored in 8 bits itself ("double
quantization") it costs an eighth.

Codes, absmax and values equal those of bitsandbytes.
"""

import functools

import torch
from torch import Tensor, nn

BLOCK = 64  # weights that share an absmax
ABSMAX_BLOCK = 256  # absmax that share an absmax of their own
# The 16 levels, to the digits that QLoRA published. `compute_normal_levels` derives them.
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def compute_normal_levels(bits: int = 4) -> Tensor:
    """Compute the levels that suit a normal distribution, from -1 to 1 and with an exact zero: NF4's for 4 bits.

    The levels are quantiles at evenly spaced probabilities: half of them below zero, and one more above. The quantiles
    of 0 and 1 are infinite. So the outermost probability is 1 minus the mean of half a step in each half.

    Returns:
        The levels (2^bits,), float32, rising.
    """
    below, above = 2 ** (bits - 1), 2 ** (bits - 1) + 1  # each with the zero
    outermost = 1 - (1 / (2 * (2 * below)) + 1 / (2 * (2 * below - 1))) / 2
    positive = torch.special.ndtri(torch.linspace(outermost, 0.5, above, dtype=torch.float64))[:-1]
    negative = -torch.special.ndtri(torch.linspace(outermost, 0.5, below, dtype=torch.float64))[:-1]
    levels = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive.flip(0)])
    return (levels / levels.max()).float()


@functools.cache
def get_levels(bits: int) -> Tensor:
    """Return the levels of NF4, or those for another number of bits: (2^bits,), float32, rising."""
    return torch.tensor(NF4_LEVELS) if bits == 4 else compute_normal_levels(bits)


def quantize_to_levels(tensor: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Replace each number by the number of its nearest normal level.

    Args:
        tensor: any shape. Zeros fill up its last block.
        bits: bits of a number.

    Returns:
        Level numbers (blocks, 64), uint8, and the absmax of each block (blocks,), float32.
    """
    flat = tensor.detach().float().flatten()
    blocks = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    absmax = blocks.abs().amax(dim=1)
    scaled = blocks / absmax.where(absmax > 0, 1.0)[:, None]
    levels = get_levels(bits).to(tensor.device)
    between = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(scaled, between).to(torch.uint8), absmax


def quantize_nf4(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a tensor to NF4.

    Args:
        tensor: n numbers in any shape.

    Returns:
        Codes (ceil(n / 2),), uint8, two level numbers in each with the first in the upper half; and the absmax of
        each block of 64 numbers, (ceil(n / 64),), float32.
    """
    numbers, absmax = quantize_to_levels(tensor, 4)
    pairs = numbers.flatten()[: tensor.numel() + tensor.numel() % 2].view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1], absmax


def dequantize_nf4(codes: Tensor, absmax: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Return the tensor of a shape, float32, that the codes and absmax of `quantize_nf4` stand for."""
    count = torch.Size(shape).numel()
    values = nn.functional.embedding(codes.int(), _compute_byte_levels().to(codes.device)).flatten()  # a byte at a time
    whole = count // BLOCK * BLOCK
    values[:whole].view(-1, BLOCK).mul_(absmax[: whole // BLOCK, None])
    values[whole:].mul_(absmax[-1])
    return values[:count].view(shape)


@functools.cache
def _compute_byte_levels() -> Tensor:
    """Return the two levels that each byte of two level numbers stands for: (256, 2)."""
    byte = torch.arange(256)
    return get_levels(4)[torch.stack([byte >> 4, byte & 15], dim=1)]


@functools.cache
def compute_dynamic_levels() -> Tensor:
    """Return 256 levels from -1 to 1, relatively as exact for small numbers as for large ones: (256,), rising.

    There are seven decades. Each has twice as many levels as the one below, in the middles of even steps from a tenth
    of its top to its top (Dettmers 2015, "dynamic tree quantization").
    """
    positive: list[Tensor] = []
    for n in range(7):
        steps = torch.linspace(0.1, 1, 2**n + 1)
        positive.append((steps[:-1] + steps[1:]) / 2 * 10.0 ** (n - 6))
    both = torch.cat([*positive, *(-values for values in positive), torch.tensor([0.0, 1.0])])
    return both.sort().values


def quantize_absmax(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Store absmax in 8 bits ("double quantization").

    Args:
        absmax: (N,), float32.

    Returns:
        Codes (N,), uint8; the largest magnitude of each 256, once the mean is subtracted; and that mean, ().
    """
    mean = absmax.mean()
    count = len(absmax)
    blocks = nn.functional.pad(absmax - mean, (0, -count % ABSMAX_BLOCK)).view(-1, ABSMAX_BLOCK)
    largest = blocks.abs().amax(dim=1)
    scaled = blocks / largest.where(largest > 0, 1.0)[:, None]
    levels = compute_dynamic_levels().to(absmax.device)
    return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).flatten()[:count], largest, mean


def dequantize_absmax(codes: Tensor, largest: Tensor, mean: Tensor) -> Tensor:
    """Return the absmax (N,) that the results of `quantize_absmax` stand for."""
    values = compute_dynamic_levels().to(codes.device)[codes.int()]
    return values * largest.repeat_interleave(ABSMAX_BLOCK)[: len(codes)] + mean

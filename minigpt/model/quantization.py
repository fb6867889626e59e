"""Four bits a weight: NF4, as QLoRA keeps a frozen model in (Dettmers et al. 2023), equal to bitsandbytes'.

The weights of a trained matrix are nearly normal, so the sixteen values that four bits can name lie where a normal
distribution has its mass: each stands for about as many weights as any other. A matrix is cut into blocks of 64; each
is divided by its largest magnitude, its absmax, so that it lies within -1 and 1, and each weight takes the nearest
value's number. Two numbers fill a byte. An absmax of 32 bits a block is half a bit more for each weight; kept in 8 bits
themselves ("double quantization") they are an eighth.
"""

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minigpt.errors import ConfigError
from minigpt.kernels.onednn_linear import Linear, linear
from minigpt.model import TrainedModel
from minigpt.model.gpt import GPT
from minigpt.model.int8 import Linear8bit, to_8_bits
from minigpt.model.modern import Modern

BLOCK = 64  # weights that share an absmax
BLOCK_OF_ABSMAX = 256  # absmax that share one of their own
# The sixteen values, to the digits that QLoRA published; `normal_levels` says where they come from.
NF4 = (
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


def normal_levels(bits: int = 4) -> Tensor:
    """The 2^bits values that suit a normal distribution, from -1 to 1 and with an exact zero: NF4's for 4 bits.

    Quantiles at even steps of probability, half of them below zero and one more above; the outermost lie as far from
    certainty as half a step of either half, averaged.
    """
    below, above = 2 ** (bits - 1), 2 ** (bits - 1) + 1  # each with the zero
    outermost = 1 - (1 / (2 * (2 * below)) + 1 / (2 * (2 * below - 1))) / 2
    positive = torch.special.ndtri(torch.linspace(outermost, 0.5, above, dtype=torch.float64))[:-1]
    negative = -torch.special.ndtri(torch.linspace(outermost, 0.5, below, dtype=torch.float64))[:-1]
    levels = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive.flip(0)])
    return (levels / levels.max()).float()


@functools.cache
def levels_of(bits: int) -> Tensor:
    """The values that so many bits can name: (2^bits,), rising."""
    return torch.tensor(NF4) if bits == 4 else normal_levels(bits)


def quantize_levels(tensor: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Each number's nearest value's number, (blocks, BLOCK) uint8, and each block's absmax, (blocks,).

    The last block is filled up with zeros.
    """
    flat = tensor.detach().float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    absmax = blocks.abs().amax(dim=1)
    scaled = blocks / absmax.where(absmax > 0, 1.0)[:, None]
    levels = levels_of(bits).to(tensor.device)
    between = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(scaled, between).to(torch.uint8), absmax


def quantize_nf4(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor of n numbers as codes, two to a byte, (ceil(n / 2),) uint8, and the absmax of each block of 64, float32.

    The first of two is in the upper half of their byte.
    """
    numbers, absmax = quantize_levels(tensor, 4)
    pairs = numbers.flatten()[: tensor.numel() + tensor.numel() % 2].view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1], absmax


@functools.cache
def pairs_of_levels() -> Tensor:
    """The two values that each byte of two codes stands for: (256, 2)."""
    byte = torch.arange(256)
    return levels_of(4)[torch.stack([byte >> 4, byte & 15], dim=1)]


def dequantize_nf4(codes: Tensor, absmax: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """The tensor of that shape that the codes and absmax of `quantize_nf4` stand for: float32."""
    count = torch.Size(shape).numel()
    values = nn.functional.embedding(codes.int(), pairs_of_levels().to(codes.device)).flatten()  # a byte at a time
    whole = count // BLOCK * BLOCK
    values[:whole].view(-1, BLOCK).mul_(absmax[: whole // BLOCK, None])
    values[whole:].mul_(absmax[-1])
    return values[:count].view(shape)


@functools.cache
def dynamic_levels() -> Tensor:
    """256 values from -1 to 1 of which the small ones are as exact, relatively, as the large: (256,), rising.

    Seven decades, each with twice as many values as the one below, at the middles of even steps from a tenth of it to
    its top (Dettmers 2015, "dynamic tree quantization").
    """
    positive: list[Tensor] = []
    for n in range(7):
        steps = torch.linspace(0.1, 1, 2**n + 1)
        positive.append((steps[:-1] + steps[1:]) / 2 * 10.0 ** (n - 6))
    both = torch.cat([*positive, *(-values for values in positive), torch.tensor([0.0, 1.0])])
    return both.sort().values


def quantize_absmax(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Double quantization: absmax (N,) as codes (N,) uint8, the absmax of each 256, less the mean, and that mean ()."""
    mean = absmax.mean()
    count = len(absmax)
    blocks = torch.nn.functional.pad(absmax - mean, (0, -count % BLOCK_OF_ABSMAX)).view(-1, BLOCK_OF_ABSMAX)
    largest = blocks.abs().amax(dim=1)
    scaled = blocks / largest.where(largest > 0, 1.0)[:, None]
    levels = dynamic_levels().to(absmax.device)
    return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).flatten()[:count], largest, mean


def dequantize_absmax(codes: Tensor, largest: Tensor, mean: Tensor) -> Tensor:
    """The absmax (N,) that the results of `quantize_absmax` stand for."""
    values = dynamic_levels().to(codes.device)[codes.int()]
    return values * largest.repeat_interleave(BLOCK_OF_ABSMAX)[: len(codes)] + mean


def in_four_bits(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A matrix as what Linear4bit holds."""
    codes, absmax = quantize_nf4(weight)
    return codes, *quantize_absmax(absmax)


def empty_nf4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of a matrix without values, for those that will be loaded."""
    count = weight.numel()
    blocks = -(-count // BLOCK)
    codes = weight.new_empty(-(-count // 2), dtype=torch.uint8)
    largest = weight.new_empty(-(-blocks // BLOCK_OF_ABSMAX))
    return codes, weight.new_empty(blocks, dtype=torch.uint8), largest, weight.new_empty(())


class Linear4bit(nn.Module):
    """A linear layer that holds its matrix in NF4, and nowhere in full: 4.13 bits a weight; it cannot be trained."""

    codes: Tensor  # (ceil(O * I / 2),), uint8
    absmax: Tensor  # (ceil(O * I / 64),), uint8
    absmax_largest: Tensor  # (ceil(O * I / 16384),)
    absmax_mean: Tensor  # ()

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight
        held = empty_nf4(weight) if weight.is_meta else in_four_bits(weight)
        for name, tensor in zip(("codes", "absmax", "absmax_largest", "absmax_mean"), held, strict=True):
            self.register_buffer(name, tensor)
        self.bias = layer.bias

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I) in full precision, made anew each time."""
        absmax = dequantize_absmax(self.absmax, self.absmax_largest, self.absmax_mean)
        return dequantize_nf4(self.codes, absmax, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return Product4bit.apply(x, self)


class Product4bit(torch.autograd.Function):
    """The product with a matrix in four bits, which is in full forward and again backward, but not between."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Linear4bit) -> Tensor:
        """(..., I) to (..., O)."""
        ctx.layer = layer
        return linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of x (..., I), from that of the result (..., O)."""
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


def to_4_bits(model: nn.Module) -> nn.Module:
    """The model with the matrices of its blocks in four bits, in place; embeddings and the head stay as they are."""
    for path, module in [*model.named_modules()]:
        for name, child in [*module.named_children()]:
            if type(child) in (nn.Linear, Linear) and path.startswith("blocks"):
                setattr(module, name, Linear4bit(child))
    return model


def quantized(model: TrainedModel, kind: Literal["int8", "nf4"]) -> GPT | Modern:
    """The model with its matrices in few bits, in place; it need not have values yet.

    Raises ConfigError for a model that has no blocks, or whose matrices are in few bits already.
    """
    if not isinstance(model, GPT | Modern):
        raise ConfigError("only the fast GPT and the modern one keep their matrices in few bits: take a run of those")
    if any(isinstance(module, Linear4bit | Linear8bit) for module in model.modules()):
        raise ConfigError("its matrices are in few bits already: take the run that it was made from")
    (to_8_bits if kind == "int8" else to_4_bits)(model)
    return model

"""Quantized matrices: int8, and NF4, in which QLoRA keeps a frozen model (Dettmers et al. 2023).

int8 divides each row of a matrix by a scale, and rounds each weight to a whole number from -127 to 127.

NF4 uses four bits. The weights of a trained matrix are nearly normally distributed, so its 16 levels lie where a
normal distribution has its mass: each is the nearest level of about equally many weights. A matrix is cut into blocks
of 64 weights. Each block is divided by its largest magnitude, its absmax, and each weight becomes the number of the
nearest level. Two numbers fill a byte. An absmax in float32 costs half a bit for each weight. Stored in 8 bits
itself ("double quantization") it costs an eighth.

Codes, absmax and values equal those of bitsandbytes.
"""

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minigpt.errors import ConfigError
from minigpt.model.gpt import GPT, FunctionalLinear
from minigpt.model.language_model import TrainedModel
from minigpt.model.modern import Modern

__all__ = [
    "Linear4bit",
    "Linear8bit",
    "dequantize_int8",
    "dequantize_nf4",
    "quantize_int8",
    "quantize_layers",
    "quantize_model",
    "quantize_nf4",
]

Quantization = Literal["int8", "nf4"]

INT8_MAX = 127  # codes are as many above zero as below
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


# int8


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to 8 bits, with a scale for each row.

    Args:
        weight: (O, I), float.

    Returns:
        Codes (O, I), int8, and scales (O,). Codes times scale differ from the matrix by at most half a scale.
    """
    scale = weight.abs().amax(dim=1) / INT8_MAX
    scale[scale == 0] = 1  # a row of zeros
    return (weight / scale[:, None]).round().to(torch.int8), scale


def dequantize_int8(codes: Tensor, scale: Tensor) -> Tensor:
    """Return the matrix (O, I) that the codes (O, I) and the scales (O,) of `quantize_int8` stand for."""
    return codes * scale[:, None]


class Linear8bit(nn.Module):
    """A linear layer that stores its matrix in int8. It cannot be trained."""

    codes: Tensor  # (O, I), int8
    scale: Tensor  # (O,)

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        empty = weight.new_empty(weight.shape, dtype=torch.int8), weight.new_empty(layer.out_features)
        codes, scale = empty if weight.is_meta else quantize_int8(weight)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.bias = layer.bias
        self.multiply = FunctionalLinear()

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I) in full precision."""
        return dequantize_int8(self.codes, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x by the weights and add the bias: (..., I) -> (..., O)."""
        return self.multiply(x, self.weight, self.bias)


# NF4


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


class Linear4bit(nn.Module):
    """A linear layer that stores its matrix in NF4: 4.13 bits a weight. It cannot be trained."""

    codes: Tensor  # (ceil(O * I / 2),), uint8
    absmax: Tensor  # (ceil(O * I / 64),), uint8
    absmax_largest: Tensor  # (ceil(O * I / 16384),)
    absmax_mean: Tensor  # ()

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        stored = _create_empty_nf4(layer.weight) if layer.weight.is_meta else _quantize_twice(layer.weight)
        for name, tensor in zip(("codes", "absmax", "absmax_largest", "absmax_mean"), stored, strict=True):
            self.register_buffer(name, tensor)
        self.bias = layer.bias
        self.multiply = FunctionalLinear()

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I) in float32, computed anew each time."""
        absmax = dequantize_absmax(self.absmax, self.absmax_largest, self.absmax_mean)
        return dequantize_nf4(self.codes, absmax, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x by the weights and add the bias: (..., I) -> (..., O)."""
        return _Product4bit.apply(x, self)


class _Product4bit(torch.autograd.Function):
    """The product with a matrix in NF4. Forward and backward dequantize it; nothing keeps it in between."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Linear4bit) -> Tensor:
        """Multiply x by the weights and add the bias: (..., I) -> (..., O)."""
        ctx.layer = layer
        return layer.multiply(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of x (..., I) from that of the result (..., O)."""
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


def _quantize_twice(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a matrix as the four buffers of Linear4bit."""
    codes, absmax = quantize_nf4(weight)
    return codes, *quantize_absmax(absmax)


def _create_empty_nf4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four buffers without values, for a matrix on the meta device."""
    count = weight.numel()
    blocks = -(-count // BLOCK)
    codes = weight.new_empty(-(-count // 2), dtype=torch.uint8)
    largest = weight.new_empty(-(-blocks // ABSMAX_BLOCK))
    return codes, weight.new_empty(blocks, dtype=torch.uint8), largest, weight.new_empty(())


# Models


def quantize_layers(model: nn.Module, quantization: Quantization) -> None:
    """Replace linear layers of a model by quantized ones, in place.

    "int8" replaces all of them, "nf4" those of the blocks. Embeddings, and a head tied to them, stay as they are.
    """
    for path, module in [*model.named_modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.Linear) and (quantization == "int8" or path.startswith("blocks")):
                setattr(module, name, Linear8bit(child) if quantization == "int8" else Linear4bit(child))


def quantize_model(model: TrainedModel, quantization: Quantization) -> GPT | Modern:
    """Replace the linear layers of a model by quantized ones, in place; it may be on the meta device.

    Returns:
        The model.

    Raises:
        ConfigError: the model has no blocks, or is quantized already.
    """
    if not isinstance(model, GPT | Modern):
        raise ConfigError("only the fast GPT and the modern architecture can be quantized: name a run of one of them")
    if any(isinstance(module, Linear4bit | Linear8bit) for module in model.modules()):
        raise ConfigError("the run is quantized already: quantize the original run")
    quantize_layers(model, quantization)
    return model

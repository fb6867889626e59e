"""Linear layers whose matrices are quantized, in int8 or in NF4 (nf4.py), and models that have them.

int8 divides each row of a matrix by a scale, and rounds each weight to a whole number from -127 to 127.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minigpt.errors import ConfigError
from minigpt.model.gpt import GPT, FunctionalLinear
from minigpt.model.language_model import TrainedModel
from minigpt.model.modern import Modern
from minigpt.model.nf4 import (
    ABSMAX_BLOCK,
    BLOCK,
    dequantize_absmax,
    dequantize_nf4,
    quantize_absmax,
    quantize_nf4,
)

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

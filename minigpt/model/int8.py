"""Matrices in 8 bits: a quarter of the memory, and where a token waits for memory, of the time."""

import torch
from torch import Tensor, nn

from minigpt.kernels.onednn_linear import Linear, linear

LARGEST = 127  # of the codes, which are as many above zero as below


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (O, I) as codes (O, I), int8, and a scale for each output (O,): codes times scale is nearly the matrix.

    Each row's largest value becomes 127 or -127, so nothing is off by more than half of its scale.
    """
    scale = weight.abs().amax(dim=1) / LARGEST
    scale[scale == 0] = 1  # a row of zeros
    return (weight / scale[:, None]).round().to(torch.int8), scale


def dequantize_int8(codes: Tensor, scale: Tensor) -> Tensor:
    """The matrix (O, I) that the codes (O, I) and the scales (O,) stand for."""
    return codes * scale[:, None]


class Linear8bit(nn.Module):
    """A linear layer that holds its matrix in 8 bits and multiplies by what they stand for; it cannot be trained."""

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

    @property
    def weight(self) -> Tensor:
        """The matrix (O, I) in full precision."""
        return dequantize_int8(self.codes, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, I) to (N, O)."""
        return linear(x, self.weight, self.bias)


def to_8_bits(model: nn.Module) -> nn.Module:
    """The model with all its matrices in 8 bits, in place; embeddings, and a head tied to them, stay as they are."""
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, Linear):
                setattr(module, name, Linear8bit(child))
    return model

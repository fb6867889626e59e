"""Matrices in 8 bits."""

import pytest
import torch
from torch import nn

from minigpt.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.quantization import Linear8bit, dequantize_int8, quantize_int8, quantize_model


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 192)])
def test_codes_are_the_nearest_there_are(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, shape[0])[:, None]
    codes, scale = quantize_int8(weight)
    assert codes.dtype == torch.int8
    assert codes.shape == shape
    assert (codes.int().abs().amax(dim=1) == 127).all()  # the whole range of each row is used
    assert ((dequantize_int8(codes, scale) - weight).abs() <= scale[:, None] * 0.5001).all()


def test_a_row_of_zeros_stays_one() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    codes, scale = quantize_int8(weight)
    assert dequantize_int8(codes, scale)[0].tolist() == [0, 0]
    assert codes[1].tolist() == [64, -127]


def test_weights_that_codes_can_hold_exactly_lose_nothing() -> None:
    weight = torch.randint(-127, 128, (5, 40), generator=torch.Generator().manual_seed(0)).float() / 8
    weight[:, 0] = 127 / 8
    layer = nn.Linear(40, 5)
    layer.weight.data = weight
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(Linear8bit(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_in_8_bits_holds_every_matrix_in_a_quarter_of_the_memory(tied: bool) -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_embd=32, n_layer=2, tied_head=tied)).eval()
    idx = torch.randint(65, (1, 32))
    before = model(idx)[0]
    assert quantize_model(model, "int8") is model
    matrices = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.int8}
    kinds = ("attention.qkv", "attention.proj", "ffwd.up", "ffwd.down")
    expected = {f"blocks.{layer}.{kind}.codes" for layer in range(2) for kind in kinds}
    assert matrices == expected | (set() if tied else {"lm_head.codes"})
    difference = (model(idx)[0] - before).abs().max()
    assert 0 < difference < 0.05 * before.std()

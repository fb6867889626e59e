"""NF4 against bitsandbytes, LoRA over layers in 4 bits against LoRA over dequantized layers, and int8."""

import copy
import gc
import random
from collections.abc import Iterator

import pytest
import torch
from lazy_module import LazyModule
from torch import nn

from minigpt.config import ModelConfig
from minigpt.finetuning.lora import apply_lora, find_lora_layers, merge, merge_and_unload, unmerge
from minigpt.model import build
from minigpt.model.gpt import GPT
from minigpt.model.nf4 import (
    BLOCK,
    NF4_LEVELS,
    compute_dynamic_levels,
    compute_normal_levels,
    dequantize_absmax,
    dequantize_nf4,
    get_levels,
    quantize_absmax,
    quantize_nf4,
    quantize_to_levels,
)
from minigpt.model.quantization import (
    Linear4bit,
    Linear8bit,
    dequantize_int8,
    quantize_int8,
    quantize_layers,
    quantize_model,
)

theirs = LazyModule("bitsandbytes.functional")

rng = random.Random(3)
SHAPES = [(1,), (2,), (63,), (64,), (65,), (127, 1), (3, 5), (64, 64), (1, 4097), (255, 33), (2, 3, 7)]
SHAPES += [(rng.randint(1, 300), rng.randint(1, 300)) for _ in range(29)]


@pytest.fixture(autouse=True, scope="module")
def uncompiled() -> Iterator[None]:
    """bitsandbytes uncompiled: it compiles its functions for every shape anew, which takes seconds each."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def weights(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    tensor = torch.randn(shape)
    tensor = (tensor.exp() if seed % 3 == 1 else tensor) * 10 ** random.Random(seed).uniform(-4, 2)
    if seed % 5 == 2:
        tensor.flatten()[: tensor.numel() // 2] = 0  # whole blocks of zeros
    return tensor


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_codes_absmax_and_values_are_those_of_bitsandbytes(shape: tuple[int, ...]) -> None:
    for seed in range(6):
        tensor = weights(shape, seed)
        packed, state = theirs.quantize_4bit(tensor, blocksize=BLOCK, quant_type="nf4", compress_statistics=False)
        codes, absmax = quantize_nf4(tensor)
        assert codes.dtype == torch.uint8
        assert torch.equal(codes, packed.flatten())
        assert torch.equal(absmax, state.absmax)
        back = dequantize_nf4(codes, absmax, shape)
        assert back.shape == shape
        assert torch.equal(back.flatten(), theirs.dequantize_4bit(packed, state).flatten())


def test_the_levels_are_where_a_normal_distribution_has_its_mass() -> None:
    assert (compute_normal_levels(4) - torch.tensor(NF4_LEVELS)).abs().max() < 1e-6
    for bits in (2, 3, 4, 5):
        levels = get_levels(bits)
        assert len(levels) == 2**bits
        assert (levels.diff() > 0).all()
        assert {-1.0, 0.0, 1.0} <= set(levels.tolist())
    torch.manual_seed(0)
    numbers, _ = quantize_to_levels(torch.randn(2**20), 4)
    shares = numbers.flatten().bincount(minlength=16) / numbers.numel()
    assert shares.min() > 0.015  # of evenly spaced levels the outermost would have 0.008, and the middle ones 0.16
    assert shares.max() < 0.12


def test_absmax_in_eight_bits_are_nearly_those_of_bitsandbytes() -> None:
    assert torch.equal(compute_dynamic_levels(), theirs.create_dynamic_map())
    for seed in range(8):
        absmax = weights((random.Random(seed).randint(300, 3000),), 3 * seed).abs()
        mean = absmax.mean()
        codes, largest, offset = quantize_absmax(absmax)
        packed, state = theirs.quantize_blockwise(absmax - mean, blocksize=256)
        assert torch.equal(largest, state.absmax)
        assert (codes.int() - packed.int()).abs().max() <= 2  # ours is always the nearest
        back, other = dequantize_absmax(codes, largest, offset) - mean, theirs.dequantize_blockwise(packed, state)
        off, others = (absmax - mean - back).abs(), (absmax - mean - other).abs()
        assert (off <= others + 1e-5 * largest.max()).all()


def test_a_layer_is_four_bits_a_weight_and_keeps_no_more_for_its_gradient() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(1024, 4096)
    small = Linear4bit(layer)
    held = sum(buffer.numel() * buffer.element_size() for buffer in small.buffers())
    assert held * 8 / layer.weight.numel() < 4.14
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        x = torch.randn(8, 1024, requires_grad=True)
        result = small(x)
    assert sum(kept) == 0
    gc.collect()
    result.sum().backward()
    full = nn.Linear(1024, 4096)
    full.weight.data, full.bias.data = small.weight, layer.bias.data
    again = x.detach().requires_grad_()
    expected = full(again)
    expected.sum().backward()
    assert (result - expected).abs().max() < 1e-5
    assert (x.grad - again.grad).abs().max() < 1e-4
    assert ((small.weight - layer.weight).abs() <= layer.weight.abs().max() * 0.16).all()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("implementation", ["fast", "lecture"])
def test_lora_over_four_bits_is_lora_over_what_they_stand_for(implementation: str, dora: bool) -> None:
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=31, block_size=16, n_embd=32, n_head=2, n_layer=2, implementation=implementation)
    model = build(shape).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    small = copy.deepcopy(model)
    quantize_layers(small, "nf4")
    for path, module in small.named_modules():
        if isinstance(module, Linear4bit):
            model.get_submodule(path).weight.data.copy_(module.weight)
    for each in (model, small):
        torch.manual_seed(2)
        apply_lora(each, rank=4, targets=["proj", "up", "qkv"] if implementation == "fast" else None, dora=dora)
        for layer in find_lora_layers(each).values():
            for parameter in layer.adapters["default"].parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
    ids = torch.randint(31, (3, 17))
    results = []
    for each in (model, small):
        logits, loss = each(ids[:, :-1], ids[:, 1:])
        loss.backward()
        results.append((logits, [p.grad for name, p in each.named_parameters() if ".adapters." in name]))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert len(results[0][1]) > 0
    for ours, expected in zip(results[1][1], results[0][1], strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)
    before = small(ids[:, :-1])[0]
    merge(small)
    assert torch.allclose(small(ids[:, :-1])[0], before, atol=1e-4)
    unmerge(small)
    assert torch.equal(small(ids[:, :-1])[0], before)
    merge_and_unload(small)
    assert torch.allclose(small(ids[:, :-1])[0], before, atol=1e-4)


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

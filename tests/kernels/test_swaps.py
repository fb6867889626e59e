"""Accelerated models compute what plain models compute, and can be restored."""

import copy
import dataclasses

import pytest
import torch
from naive_generation import SMALL, create_model
from torch import nn

from minigpt.acceleration import accelerate, restore
from minigpt.config import Config
from minigpt.finetuning.lora import apply_lora
from minigpt.kernels.onednn_linear import HAS_ONEDNN, OneDNNLinear
from minigpt.kernels.swaps import swap_modules
from minigpt.model.quantization import Linear4bit, Linear8bit, quantize_layers

ONEDNN = ["onednn_linear"] if HAS_ONEDNN else []
BIGRAM = dataclasses.replace(SMALL, architecture="bigram")
LECTURE = dataclasses.replace(SMALL, implementation="lecture")
GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)
MODERN = dataclasses.replace(SMALL, architecture="modern")
KERNELS = [
    (SMALL, ONEDNN),
    (GPT2, ONEDNN),
    (MODERN, ["causal_attention", "elementwise", *ONEDNN]),
    (LECTURE, []),
    (BIGRAM, []),
]


def classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def gradients(model: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss of a batch and the gradient of each parameter."""
    idx = torch.randint(23, (3, 21), generator=torch.Generator().manual_seed(0))
    _, loss = model(idx[:, :-1], idx[:, 1:])
    return loss, list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


@pytest.mark.parametrize(("shape", "names"), KERNELS, ids=["lecture", "gpt2", "modern", "lecture.py", "bigram"])
def test_loss_and_gradients_are_those_of_the_plain_model(shape: object, names: list[str]) -> None:
    plain = create_model(shape)
    fast = copy.deepcopy(plain)
    assert swap_modules(fast, Config(model=shape), has_avx512=True) == sorted(names)
    assert swap_modules(fast, Config(model=shape), has_avx512=True) == sorted(names)
    assert list(fast.state_dict()) == list(plain.state_dict())
    (loss, expected), (fast_loss, found) = gradients(plain), gradients(fast)
    torch.testing.assert_close(fast_loss, loss, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("shape", "names"), KERNELS, ids=["lecture", "gpt2", "modern", "lecture.py", "bigram"])
def test_a_restored_model_has_its_classes_and_parameters_again(shape: object, names: list[str]) -> None:
    model = create_model(shape)
    before, parameters = classes(model), list(model.parameters())
    swap_modules(model, Config(model=shape), has_avx512=True)
    assert (classes(model) != before) == bool(names)
    restore(model)
    assert classes(model) == before
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


@pytest.mark.skipif(not HAS_ONEDNN, reason="this build of PyTorch has no oneDNN")
def test_hooked_layers_compute_plainly() -> None:
    model, calls = create_model(SMALL), []
    model.blocks[0].attention.attend.register_forward_hook(lambda *_: calls.append(1))
    hooked = model.blocks[1].ffwd.up
    hooked.register_forward_hook(lambda *_: calls.append(2))
    swap_modules(model, Config(model=SMALL), has_avx512=True)
    assert type(hooked) is nn.Linear
    gradients(model)
    assert calls == [1, 2]


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
def test_adapters_and_quantized_layers_stay_and_train_the_same(quantization: str | None) -> None:
    plain = create_model(SMALL)
    if quantization is not None:
        quantize_layers(plain, quantization)
    apply_lora(plain, rank=2)
    fast = copy.deepcopy(plain)
    swap_modules(fast, Config(model=SMALL), has_avx512=True)
    kept = (Linear4bit, Linear8bit)
    assert [kind for kind in classes(fast) if kind in kept] == [kind for kind in classes(plain) if kind in kept]
    (loss, expected), (fast_loss, found) = gradients(plain), gradients(fast)
    torch.testing.assert_close(fast_loss, loss, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_model_without_values_stays_as_it_is() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2))
    before = classes(model)
    assert accelerate(model, Config()) == []
    assert classes(model) == before


@pytest.mark.skipif(not HAS_ONEDNN, reason="this build of PyTorch has no oneDNN")
def test_a_fast_layer_falls_back_under_autocast_and_without_gradients() -> None:
    model = create_model(SMALL)
    plain = copy.deepcopy(model)
    swap_modules(model, Config(model=SMALL), has_avx512=True)
    assert type(model.blocks[0].ffwd.up) is OneDNNLinear
    idx = torch.randint(23, (2, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(idx)[0], plain(idx)[0])
    with torch.no_grad():
        torch.testing.assert_close(model(idx)[0], plain(idx)[0], rtol=1e-5, atol=1e-5)


def test_without_avx512_the_products_stay_those_of_pytorch() -> None:
    model = create_model(MODERN)
    assert swap_modules(model, Config(model=MODERN), has_avx512=False) == ["causal_attention", "elementwise"]
    assert OneDNNLinear not in classes(model)

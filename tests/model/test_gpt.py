"""GPT against the lecture's model, with the same weights: one function, two ways to compute it."""

import dataclasses

import pytest
import safetensors.torch
import torch

from minigpt.config import ModelConfig
from minigpt.model import build
from minigpt.model.gpt import GPT, FeedForward
from minigpt.model.lecture import GPTLanguageModel

SHAPES = [
    ModelConfig(vocab_size=65),
    ModelConfig(vocab_size=11, block_size=5, n_embd=12, n_head=3, n_layer=1),
    ModelConfig(vocab_size=2, block_size=1, n_embd=1, n_head=1, n_layer=2),
    ModelConfig(vocab_size=30, block_size=70, n_embd=24, n_head=1, n_layer=3),
]


def random_weights(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def both(config: ModelConfig, dtype: torch.dtype) -> tuple[GPTLanguageModel, GPT]:
    lecture = random_weights(GPTLanguageModel(config).to(dtype))
    return lecture, GPT.from_lecture(lecture.state_dict(), config.dropout)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"{c.block_size}x{c.n_embd}")
def test_logits_loss_and_every_gradient_are_the_lectures(
    config: ModelConfig, dtype: torch.dtype, tolerance: float
) -> None:
    lecture, gpt = both(config, dtype)
    assert gpt.config == config
    for T in {1, config.block_size // 2 + 1, config.block_size}:
        idx, targets = torch.randint(config.vocab_size, (2, 3, T), generator=torch.Generator().manual_seed(T))
        expected, found = lecture(idx, targets), gpt(idx, targets)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        for model, (_, loss) in ((lecture, expected), (gpt, found)):
            model.zero_grad()
            loss.backward()
        gradients = GPT(config).to(dtype)
        gradients.load_state_dict({name: parameter.grad for name, parameter in gpt.named_parameters()})
        as_lecture = gradients.to_lecture()
        for name, parameter in lecture.named_parameters():
            torch.testing.assert_close(as_lecture[name], parameter.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"{c.block_size}x{c.n_embd}")
def test_there_and_back_nothing_is_lost(config: ModelConfig) -> None:
    lecture, gpt = both(config, torch.float32)
    back = gpt.to_lecture()
    assert back.keys() == lecture.state_dict().keys()
    for name, tensor in lecture.state_dict().items():
        assert torch.equal(back[name], tensor), name
    GPTLanguageModel(config).load_state_dict(back)


def test_both_start_with_the_same_weights_from_the_same_seed() -> None:
    config = SHAPES[1]
    models = []
    for implementation in ("lecture", "fast"):
        torch.manual_seed(3)
        models.append(build(dataclasses.replace(config, implementation=implementation)))
        models.append(torch.rand(3))  # and what is drawn afterwards is the same too
    lecture, after, gpt, after_too = models
    assert isinstance(lecture, GPTLanguageModel)
    assert isinstance(gpt, GPT)
    assert torch.equal(after, after_too)
    back = gpt.to_lecture()
    assert all(torch.equal(back[name], tensor) for name, tensor in lecture.state_dict().items())


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    config = dataclasses.replace(SHAPES[1], dropout=0.3)
    gpt = random_weights(GPT(config))
    idx = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(0))
    assert not torch.equal(gpt(idx)[0], gpt(idx)[0])
    gpt.eval()
    assert torch.equal(gpt(idx)[0], gpt(idx)[0])
    dry = GPT(dataclasses.replace(config, dropout=0.0))
    dry.load_state_dict(gpt.state_dict())
    assert torch.equal(dry(idx)[0], gpt(idx)[0])


def test_the_exact_gelu_weighs_a_number_by_the_normal_distribution_and_gpt2s_comes_near() -> None:
    x = torch.randn(50, SHAPES[0].n_embd, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for activation, least, most in (("gelu_exact", 0, 1e-12), ("gelu", 1e-5, 1e-3)):
        ffwd = random_weights(FeedForward(dataclasses.replace(SHAPES[0], activation=activation)).double())
        ffwd.down = torch.nn.Identity()
        hidden = ffwd.up(x)
        difference = (ffwd(x) - hidden * torch.distributions.Normal(0, 1).cdf(hidden)).abs().max().item()
        assert least <= difference < most


@pytest.mark.parametrize(
    "field", [{"qkv_bias": True}, {"activation": "gelu"}, {"activation": "gelu_exact"}, {"tied_head": True}]
)
def test_what_the_lecture_lacks_cannot_go_back_to_it(field: dict) -> None:
    gpt = GPT(dataclasses.replace(SHAPES[1], **field))
    with pytest.raises(ValueError, match="the lecture's model has no qkv_bias"):
        gpt.to_lecture()


def test_a_missing_weight_is_named() -> None:
    weights = GPTLanguageModel(SHAPES[1]).state_dict()
    del weights["blocks.0.sa.heads.1.key.weight"]
    with pytest.raises(KeyError, match=r"blocks\.0\.sa\.heads\.1\.key\.weight"):
        GPT.from_lecture(weights)


def test_the_lecture_s_weights_can_be_saved() -> None:
    saved = safetensors.torch.save(GPT(SHAPES[1]).to_lecture())
    assert safetensors.torch.load(saved).keys() == GPTLanguageModel(SHAPES[1]).state_dict().keys()


def test_a_new_model_makes_no_masks() -> None:
    config = ModelConfig(vocab_size=5, block_size=2**15, n_embd=4, n_head=4, n_layer=4)  # masks of 64 GiB
    assert isinstance(build(config), GPT)

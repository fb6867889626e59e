"""The GPT block with a hand-written backward, against autograd."""

import copy

import pytest
import torch

from minigpt.acceleration import accelerate
from minigpt.config import Config
from minigpt.model import build

SHAPES = [
    {},
    {"qkv_bias": True, "tied_head": True},
    {"n_embd": 12, "n_head": 3, "block_size": 7, "n_layer": 3},
    {"n_embd": 1, "n_head": 1, "block_size": 1, "n_layer": 1},
]


def pair(dtype: torch.dtype, shape: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    config = Config().override(vocab_size=11, **shape)
    torch.manual_seed(0)
    plain = build(config.model).to(dtype)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    fused = copy.deepcopy(plain)
    assert "gpt_block" in accelerate(fused, config)
    return plain, fused


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_every_gradient_are_autograd_s(shape: dict, dtype: torch.dtype, tolerance: float) -> None:
    plain, fused = pair(dtype, shape)
    T = plain.config.block_size
    for length in {1, T // 2 + 1, T}:
        idx = torch.randint(11, (3, length + 1), generator=torch.Generator().manual_seed(length))
        losses = []
        for model in (plain, fused):
            model.zero_grad()
            _, loss = model(idx[:, :-1], idx[:, 1:])
            (2 * loss).backward()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=tolerance)
        for (name, ours), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance, msg=name)


def test_numerical_differences_agree() -> None:
    _, fused = pair(torch.float64, {"n_embd": 4, "n_head": 2, "block_size": 3, "n_layer": 1})
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: fused.blocks[0](rows), (x,))


def test_without_gradients_it_is_the_block_itself() -> None:
    plain, fused = pair(torch.float32, {})
    idx = torch.randint(11, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(fused(idx)[0], plain(idx)[0], rtol=1e-5, atol=1e-5)

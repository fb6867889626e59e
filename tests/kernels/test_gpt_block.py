"""A block with its gradient written out, against autograd."""

import copy

import pytest
import torch

from minigpt.config import Config
from minigpt.kernels import gpt_block as block
from minigpt.model import build
from minigpt.training.gradients import Gradients

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
    written = copy.deepcopy(plain)
    block.write_out_blocks(written)
    return plain, written


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_every_gradient_are_autograd_s(shape: dict, dtype: torch.dtype, tolerance: float) -> None:
    plain, written = pair(dtype, shape)
    T = plain.config.block_size
    for length in {1, T // 2 + 1, T}:
        idx = torch.randint(11, (3, length + 1), generator=torch.Generator().manual_seed(length))
        losses = []
        for model in (plain, written):
            model.zero_grad()
            _, loss = model(idx[:, :-1], idx[:, 1:])
            (2 * loss).backward()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=tolerance)
        for (name, ours), theirs in zip(written.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance, msg=name)


def test_numerical_differences_agree() -> None:
    _, written = pair(torch.float64, {"n_embd": 4, "n_head": 2, "block_size": 3, "n_layer": 1})
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: written.blocks[0](rows, 3), (x,))


def test_without_gradients_it_is_the_block_itself() -> None:
    plain, written = pair(torch.float32, {})
    idx = torch.randint(11, (2, 9))
    with torch.no_grad():
        assert torch.equal(plain(idx)[0], written(idx)[0])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"implementation": "lecture"}, False),
        ({"activation": "gelu"}, False),
        ({"dropout": 0.1}, False),
        ({"block_size": 257}, False),
        ({"precision": "bf16"}, False),
        ({"compile": True}, False),
    ],
    ids=str,
)
def test_it_is_used_where_it_is_the_same_training(settings: dict, expected: bool) -> None:
    config = Config().override(vocab_size=5, **settings)
    model = build(config.model)
    Gradients(model, config)
    assert ("forward" in vars(model.blocks[0]) and vars(model.blocks[0])["forward"].func is block.forward) == expected
    assert not block.suits(model, config, torch.device("cuda"))

"""AdamW over flat parameters against PyTorch's own, and the schedule of the learning rate."""

import math

import pytest
import torch
from torch import nn

from minigpt.config import ModelConfig, TrainingConfig
from minigpt.model.gpt import GPT
from minigpt.model.modern import Modern
from minigpt.training.flat_parameters import ALIGNMENT, flatten_parameters
from minigpt.training.learning_rate import get_learning_rate
from minigpt.training.muon import Muon, get_momentum
from minigpt.training.optimizer import Optimizer

CONFIG = ModelConfig(vocab_size=7, block_size=5, n_embd=6, n_head=2, n_layer=2, qkv_bias=True)


def build_pair() -> tuple[GPT, GPT]:
    torch.manual_seed(0)
    ours, theirs = GPT(CONFIG), GPT(CONFIG)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_flattening_changes_no_value_and_every_parameter_is_a_view() -> None:
    ours, theirs = build_pair()
    long = flatten_parameters(ours)
    assert len(long) == 2
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    for whole in long:
        whole.data.add_(1)
    for parameter, before in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter, before + 1)
        assert parameter.data_ptr() % (4 * ALIGNMENT) == long[0].data_ptr() % (4 * ALIGNMENT)
    ours(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))[1].backward()
    theirs(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    assert any(whole.grad.any() for whole in long)


@pytest.mark.parametrize("grad_clip", [0.0, 0.05])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_steps_are_those_of_adamw_with_groups(weight_decay: float, grad_clip: float) -> None:
    ours, theirs = build_pair()
    config = TrainingConfig(weight_decay=weight_decay, grad_clip=grad_clip, schedule="cosine", max_iters=10)
    optimizer = Optimizer(flatten_parameters(ours), config)
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in theirs.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-3)
    idx = torch.randint(7, (10, 4, 6), generator=torch.Generator().manual_seed(0))
    for step, batch in enumerate(idx):
        for model in (ours, theirs):
            model(batch[:, :5], batch[:, 1:])[1].backward()
        for group in adamw.param_groups:
            group["lr"] = get_learning_rate(step, config)
        if grad_clip:
            nn.utils.clip_grad_norm_(theirs.parameters(), grad_clip)
        adamw.step()
        adamw.zero_grad()
        optimizer.set_learning_rate(step)
        optimizer.clip_gradients(config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not a.grad.any()


def test_with_muon_the_blocks_matrices_are_stacked_by_shape_and_the_rest_is_adamws() -> None:
    torch.manual_seed(0)
    shape = ModelConfig(architecture="modern", vocab_size=7, block_size=5, n_embd=8, n_head=2, n_layer=2)
    ours, theirs = Modern(shape), Modern(shape)
    theirs.load_state_dict(ours.state_dict())
    long = flatten_parameters(ours, stack=True)
    stacks = {tuple(p.shape) for p in long if p.dim() == 3}
    assert stacks == {(8, 8, 8), (2, 32, 8), (2, 8, 32)}
    config = TrainingConfig(optimizer="muon", weight_decay=0.1, beta2=0.95, schedule="trapezoid", max_iters=6)
    optimizer = Optimizer(long, config)
    names = dict(theirs.named_parameters())
    hidden = {name: p for name, p in names.items() if name.startswith("blocks.") and p.dim() == 2}
    groups = [
        {"params": [p for name, p in names.items() if name not in hidden and p.dim() == 2], "weight_decay": 0.1},
        {"params": [p for p in names.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    one_by_one = [Muon([nn.Parameter(p[None].detach())], 0.02, 0.1) for p in hidden.values()]
    idx = torch.randint(7, (6, 4, 6), generator=torch.Generator().manual_seed(0))
    for step, batch in enumerate(idx):
        for model in (ours, theirs):
            model(batch[:, :5], batch[:, 1:])[1].backward()
        for group in adamw.param_groups:
            group["lr"] = get_learning_rate(step, config)
        adamw.step()
        for muon, parameter in zip(one_by_one, hidden.values(), strict=True):
            [group] = muon.param_groups
            group["lr"], group["momentum"] = 20 * get_learning_rate(step, config), get_momentum(step)
            group["params"][0].grad = parameter.grad[None]
            muon.step()
            parameter.data.copy_(group["params"][0][0])
        theirs.zero_grad()
        optimizer.set_learning_rate(step)
        optimizer.clip_gradients(config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    kept = optimizer.state_dict(ours)
    assert {name for name in kept if "blocks.0.ffwd" in name} == {
        "exp_avg.blocks.0.ffwd.token_shift_weight",
        "exp_avg_sq.blocks.0.ffwd.token_shift_weight",
        "momentum.blocks.0.ffwd.up.weight",
        "momentum.blocks.0.ffwd.down.weight",
    }


def test_the_learning_rate_rises_and_falls() -> None:
    rates = {
        schedule: [
            get_learning_rate(step, TrainingConfig(schedule=schedule, warmup_iters=4, max_iters=12, learning_rate=8.0))
            for step in range(12)
        ]
        for schedule in ("constant", "linear", "cosine", "trapezoid")
    }
    for values in rates.values():
        assert values[:5] == [2, 4, 6, 8, 8]
    assert rates["constant"][4:] == [8] * 8
    assert rates["linear"][4:] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert rates["trapezoid"][4:] == [8, 8, 8, 8, 8, 6, 4, 2]
    assert rates["cosine"][4:] == pytest.approx([4 + 4 * math.cos(math.pi * i / 8) for i in range(8)])


def test_without_warmup_the_first_step_has_the_full_learning_rate() -> None:
    assert get_learning_rate(0, TrainingConfig(schedule="cosine", max_iters=1)) == 1e-3


def test_the_learning_rate_does_not_fall_below_the_minimum() -> None:
    settings = {"learning_rate": 8.0, "min_learning_rate": 2.0, "max_iters": 6}
    falling = TrainingConfig(schedule="linear", **settings)
    assert [get_learning_rate(step, falling) for step in range(6)] == [8, 7, 6, 5, 4, 3]
    cosine = TrainingConfig(schedule="cosine", **settings)
    assert get_learning_rate(5, cosine) == pytest.approx(2 + 3 * (1 + math.cos(math.pi * 5 / 6)))

"""One long AdamW against PyTorch's own, parameter by parameter; and the learning rate's way."""

import math

import pytest
import torch
from torch import nn

from minigpt.config import ModelConfig, TrainingConfig
from minigpt.model.gpt import GPT
from minigpt.training.optimizer import ALIGNED, Optimizer, flatten, learning_rate

CONFIG = ModelConfig(vocab_size=7, block_size=5, n_embd=6, n_head=2, n_layer=2, qkv_bias=True)
SCALER = torch.amp.GradScaler("cpu", enabled=False)


def pair() -> tuple[GPT, GPT]:
    torch.manual_seed(0)
    ours, theirs = GPT(CONFIG), GPT(CONFIG)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_flattening_changes_no_value_and_every_parameter_is_a_view() -> None:
    ours, theirs = pair()
    long = flatten(ours)
    assert len(long) == 2
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    for whole in long:
        whole.data.add_(1)
    for parameter, before in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter, before + 1)
        assert parameter.data_ptr() % (4 * ALIGNED) == long[0].data_ptr() % (4 * ALIGNED)
    ours(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))[1].backward()
    theirs(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    assert any(whole.grad.any() for whole in long)


@pytest.mark.parametrize("grad_clip", [0.0, 0.05])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_steps_are_those_of_adamw_with_groups(weight_decay: float, grad_clip: float) -> None:
    ours, theirs = pair()
    config = TrainingConfig(weight_decay=weight_decay, grad_clip=grad_clip, schedule="cosine", max_iters=10)
    optimizer = Optimizer(flatten(ours), config, SCALER)
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
            group["lr"] = learning_rate(step, config)
        if grad_clip:
            nn.utils.clip_grad_norm_(theirs.parameters(), grad_clip)
        adamw.step()
        adamw.zero_grad()
        optimizer.step(step)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not a.grad.any()


def test_the_learning_rate_rises_and_falls() -> None:
    rates = {
        schedule: [
            learning_rate(step, TrainingConfig(schedule=schedule, warmup_iters=4, max_iters=12, learning_rate=8.0))
            for step in range(12)
        ]
        for schedule in ("constant", "linear", "cosine")
    }
    for values in rates.values():
        assert values[:5] == [2, 4, 6, 8, 8]
    assert rates["constant"][4:] == [8] * 8
    assert rates["linear"][4:] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert rates["cosine"][4:] == pytest.approx([4 + 4 * math.cos(math.pi * i / 8) for i in range(8)])


def test_without_warmup_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate(0, TrainingConfig(schedule="cosine", max_iters=1)) == 1e-3

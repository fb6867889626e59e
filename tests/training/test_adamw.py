"""AdamW against PyTorch's own class, bit for bit."""

import torch
from torch import nn

from minigpt.training.adamw import AdamW

STEPS = 100


def make_groups(seed: int = 0) -> list[dict]:
    """Return a group of two matrices that decay, and one of two vectors that do not; the same for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    matrices, vectors = [
        [nn.Parameter(torch.randn(shape, generator=rng)) for shape in shapes]
        for shapes in (((1, 70), (5, 3)), ((33,), (1,)))
    ]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


def test_a_hundred_steps_are_bit_for_bit_those_of_pytorch() -> None:
    ours = AdamW(make_groups(), lr=1e-2, betas=(0.9, 0.95))
    theirs = torch.optim.AdamW(make_groups(), lr=1e-2, betas=(0.9, 0.95), fused=True)
    rng = torch.Generator().manual_seed(1)
    pairs = [
        (mine, other)
        for group, other_group in zip(ours.param_groups, theirs.param_groups, strict=True)
        for mine, other in zip(group["params"], other_group["params"], strict=True)
    ]
    for step in range(STEPS):
        for number, (mine, other) in enumerate(pairs):
            gradient = torch.randn(mine.shape, generator=rng) * 10.0 ** -(step % 9)
            has_gradient = step % 5 or number != 1  # a parameter without a gradient stays
            mine.grad, other.grad = (gradient.clone(), gradient.clone()) if has_gradient else (None, None)
        for optimizer in (ours, theirs):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 / (1 + step)
            optimizer.step()
    for number, (mine, other) in enumerate(pairs):
        assert torch.equal(mine, other)
        assert mine.requires_grad
        for name, tensor in ours.state[mine].items():
            assert torch.equal(tensor, theirs.state[other][name]), name
        assert ours.state[mine]["step"] == (STEPS - STEPS // 5 if number == 1 else STEPS)

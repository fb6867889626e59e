"""The modern network against its formulas, written again here in as few lines as there are; and what holds of it."""

import dataclasses
import itertools

import pytest
import torch
from gradient_steps import prepare_steps
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import Config, ModelConfig
from minigpt.errors import ConfigError
from minigpt.model import build
from minigpt.model.modern import SLOWEST_ROTATION, Modern, Rotary
from minigpt.training.loop import compute_gradients

SHAPES = [
    ModelConfig(architecture="modern", vocab_size=65),
    ModelConfig(architecture="modern", vocab_size=11, block_size=9, n_embd=12, n_head=3, n_layer=1),
    ModelConfig(architecture="modern", vocab_size=2, block_size=1, n_embd=2, n_head=1, n_layer=2),
    ModelConfig(architecture="modern", vocab_size=300, block_size=20, n_embd=32, n_head=2, n_layer=3),
]


def random(config: ModelConfig, dtype: torch.dtype = torch.float64) -> Modern:
    torch.manual_seed(0)
    model = build(config).to(dtype)
    assert isinstance(model, Modern)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()


def shifted(x: Tensor, shares: Tensor) -> Tensor:
    return torch.stack([own + shares * before for before, own in itertools.pairwise([0 * x[0], *x])])


def written_again(model: Modern, idx: Tensor) -> Tensor:
    """One window (T,) to logits (T, V), a head at a time, the weights formed, every rotation a complex number."""
    config, weights = model.config, model.state_dict()
    H, D = config.n_head, config.n_embd // config.n_head
    x = torch.stack([weights["token_embedding_table.weight"][i] for i in idx])
    x = norm(shifted(x, weights["token_shift_weight"]))
    many = max(1, D // 4)
    speeds = [SLOWEST_ROTATION ** (i / max(1, many - 1)) for i in range(many)] + [0.0] * (D // 2 - many)
    turns = torch.polar(
        torch.ones(len(idx), D // 2).double(),
        torch.arange(len(idx))[:, None] * torch.tensor(speeds, dtype=torch.float64),
    )
    for n in range(config.n_layer):
        w = {name.removeprefix(f"blocks.{n}."): t for name, t in weights.items() if name.startswith(f"blocks.{n}.")}
        gathered = []
        for h in range(H):
            q, k, v = (norm(x) @ w[f"attention.{p}.weight"][h * D :][:D].T for p in ("query", "key", "value"))
            q, k = (torch.complex(*norm(z).chunk(2, dim=1)) * turns for z in (q, k))
            scores = (q @ k.mH).real / D**0.5
            scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, float("-inf"))
            gathered.append(scores.softmax(dim=1) @ v)
        x = x + torch.cat(gathered, dim=1) @ w["attention.proj.weight"].T
        hidden = (shifted(norm(x), w["ffwd.token_shift_weight"]) @ w["ffwd.up.weight"].T).clamp(min=0) ** 2
        x = x + hidden @ w["ffwd.down.weight"].T
    return norm(x) @ weights["lm_head.weight"].T


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"{c.block_size}x{c.n_embd}")
def test_logits_are_those_of_the_formulas(config: ModelConfig) -> None:
    model = random(config)
    idx = torch.randint(config.vocab_size, (3, config.block_size), generator=torch.Generator().manual_seed(1))
    logits, loss = model(idx, idx)
    expected = torch.stack([written_again(model, row) for row in idx])
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss, F.cross_entropy(expected.flatten(0, 1), idx.flatten()), rtol=1e-9, atol=1e-9)
    with torch.no_grad():  # PyTorch's own operations
        torch.testing.assert_close(model(idx)[0], expected, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    config = SHAPES[1]
    model = random(config)
    idx = torch.randint(config.vocab_size, (2, 2, 6), generator=torch.Generator().manual_seed(1))
    model(*idx)[1].backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        losses = []
        for side in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(direction, alpha=side)
                losses.append(model(*idx)[1])
                parameter.sub_(direction, alpha=side)
        slope = (losses[0] - losses[1]) / 2e-5
        assert (parameter.grad * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-8), name


def test_no_position_sees_a_later_one() -> None:
    config = SHAPES[0]
    model = random(config)
    idx = torch.randint(config.vocab_size, (1, 20), generator=torch.Generator().manual_seed(1))
    other = idx.clone()
    other[0, 11:] = (other[0, 11:] + 1) % config.vocab_size
    before, after = model(idx)[0], model(other)[0]
    torch.testing.assert_close(before[:, :11], after[:, :11], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before[:, 11:], after[:, 11:])


@pytest.mark.parametrize("settings", [{}, {"checkpoint_activations": True}, {"precision": "bf16"}], ids=str)
def test_what_is_applied_from_outside_changes_no_gradient(settings: dict) -> None:
    config = Config().override(**vars(SHAPES[0]), **settings)
    idx = torch.randint(65, (2, 4, 32), generator=torch.Generator().manual_seed(1))
    plain, outside = (random(SHAPES[0], torch.float32) for _ in range(2))
    plain(*idx)[1].backward()
    with prepare_steps(outside, config, tuple(idx)) as (wrapped, state):
        compute_gradients(wrapped, state)
        found = torch.cat([parameter.grad.flatten() for parameter in outside.parameters()])
    expected = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    assert (found - expected).norm() <= (0.1 if settings.get("precision") else 1e-5) * expected.norm()


def test_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 5, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores = []
    for start in (0, 1000):
        rotated_q, rotated_k = Rotary()(q, k, torch.arange(start, start + 5))
        scores.append(torch.einsum("bqhd,bkhd->bhqk", rotated_q, rotated_k))
    torch.testing.assert_close(*scores, rtol=1e-9, atol=1e-9)


def test_at_first_every_token_is_as_likely_and_blocks_are_silent() -> None:
    torch.manual_seed(0)
    model = build(SHAPES[0])
    idx = torch.randint(65, (2, 32))
    logits, loss = model(idx, idx)
    assert not logits.any()
    assert loss.item() == pytest.approx(torch.tensor(65.0).log().item())
    x = torch.randn(2, 32, 64)
    assert torch.equal(model.blocks[0](x, torch.arange(32)), x)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"n_embd": 12, "n_head": 4}, "needs an even n_embd"),
        ({"implementation": "lecture"}, "leave them out"),
        ({"activation": "gelu"}, "leave them out"),
        ({"tied_head": True}, "leave them out"),
    ],
)
def test_what_it_cannot_be(settings: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        dataclasses.replace(SHAPES[0], **settings)

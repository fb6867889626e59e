"""RMS norm, rotation, token shift, squared ReLU and dropout against their formulas, by autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minigpt.kernels.elementwise import (
    ByteDropout,
    FastRMSNorm,
    FastRotary,
    FastSquaredReLU,
    FastTokenShift,
    can_use_gradients,
)
from minigpt.model.modern import EPSILON

rms_norm, rotate, squared_relu, token_shift = FastRMSNorm(), FastRotary().rotate, FastSquaredReLU(), FastTokenShift()

ANGLES = torch.rand(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 7
COS, SIN = ANGLES.cos(), ANGLES.sin()
SHARE = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    return ByteDropout(share).train(training)(x)


def as_complex(x: Tensor) -> Tensor:
    """The rotation as a product of complex numbers."""
    a, b = x.chunk(2, dim=-1)
    product = torch.complex(a, b) * torch.polar(torch.ones_like(ANGLES), ANGLES)
    return torch.cat([product.real, product.imag], dim=-1)


def shifted(x: Tensor) -> Tensor:
    """The shift along the second dimension of (B, T, n, C), for each n a window."""
    windows = x.transpose(1, 2).flatten(0, 1)  # (B * n, T, C)
    return token_shift(windows, SHARE).view(len(x), -1, *windows.shape[1:]).transpose(1, 2)


def shifted_one_by_one(x: Tensor) -> Tensor:
    """The same, a position at a time."""
    later = (x[:, t] + SHARE.to(x.dtype) * x[:, t - 1] for t in range(1, x.shape[1]))
    return torch.stack([x[:, 0], *later], dim=1)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "rms_norm": (rms_norm, lambda x: x / (x.pow(2).mean(dim=-1, keepdim=True) + EPSILON).sqrt()),
    "rotate": (lambda x: rotate(x, COS, SIN), as_complex),
    "token_shift": (shifted, shifted_one_by_one),
    "squared_relu": (squared_relu, lambda x: torch.where(x > 0, x * x, 0.0)),
}


def values() -> Tensor:
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 0.0
    return x.requires_grad_()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_those_of_the_formula(name: str) -> None:
    ours, formula = FUNCTIONS[name]
    x, weights = values(), torch.randn(2, 5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found, expected = ours(x), formula(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    [ours_gradient] = torch.autograd.grad((found * weights).sum(), x)
    [gradient] = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(ours_gradient, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_gradients_the_library_gives_the_same(name: str) -> None:
    x = values()
    with torch.no_grad():
        library = FUNCTIONS[name][0](x)
    torch.testing.assert_close(library, FUNCTIONS[name][0](x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_in_bfloat16_values_and_gradients_are_rounded_and_no_worse(name: str) -> None:
    ours, formula = FUNCTIONS[name]
    short, weights = values().detach().bfloat16().requires_grad_(), torch.randn(2, 5, 3, 8).bfloat16()
    long = short.detach().double().requires_grad_()
    found, expected = ours(short), formula(long)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.01)
    [gradient] = torch.autograd.grad((found * weights).sum(), short)
    [exact] = torch.autograd.grad((expected * weights.double()).sum(), long)
    seen = exact.abs() < 100  # next to a vector of zeros the norm's is as steep as EPSILON lets it
    torch.testing.assert_close(gradient.double()[seen], exact[seen], rtol=0.03, atol=0.05)


def test_the_gradient_of_the_shares_is_that_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, 5, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    share = SHARE.clone().requires_grad_()
    assert torch.autograd.gradcheck(token_shift, (x, share))
    assert torch.equal(token_shift(x[:, :1], share), x[:, :1])  # nothing is before the first


def test_under_autocast_a_norm_rounds_what_it_gives_and_keeps_its_gradient_wide() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = rms_norm(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_makes_up_for_it(share: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(1000, 33).add_(1).requires_grad_()
    found = dropout(x, share, True)
    kept = found != 0
    assert kept.double().mean().item() == pytest.approx(1 - share, abs=0.01)
    torch.testing.assert_close(found.mean().item(), x.mean().item(), rtol=0.03, atol=0)
    ratio = found[kept] / x[kept]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    [gradient] = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, torch.where(kept, ratio[0], 0.0))


def test_nearly_all_may_be_dropped() -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(10_000, requires_grad=True), 0.999, True)
    assert found.isfinite().all()
    assert 0 < (found != 0).sum() < 30


def test_dropout_is_drawn_anew_and_from_the_seed() -> None:
    x = torch.ones(100, requires_grad=True)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5, True), dropout(x, 0.5, True)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_outside_of_training() -> None:
    x = torch.ones(100, requires_grad=True)
    assert torch.equal(dropout(x, 0.5, False), x)
    assert torch.equal(dropout(x, 0.0, True), x)


def test_where_the_hand_written_gradients_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_use_gradients(values())
    assert can_use_gradients(values().bfloat16())
    assert not can_use_gradients(values().half())
    with torch.no_grad():
        assert not can_use_gradients(values())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not can_use_gradients(values())

"""RMS norm, rotation and squared ReLU against their formulas in autograd's hands, and PyTorch's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minigpt.model import elementwise
from minigpt.model.elementwise import EPSILON, rms_norm, rotate, squared_relu

ANGLES = torch.rand(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 7
COS, SIN = ANGLES.cos(), ANGLES.sin()


def as_complex(x: Tensor) -> Tensor:
    """The rotation as a product of complex numbers."""
    a, b = x.chunk(2, dim=-1)
    product = torch.complex(a, b) * torch.polar(torch.ones_like(ANGLES), ANGLES)
    return torch.cat([product.real, product.imag], dim=-1)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "rms_norm": (rms_norm, lambda x: x / (x.pow(2).mean(dim=-1, keepdim=True) + EPSILON).sqrt()),
    "rotate": (lambda x: rotate(x, COS, SIN), as_complex),
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


def test_who_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert elementwise.written_out(values())
    assert not elementwise.written_out(values().bfloat16())
    with torch.no_grad():
        assert not elementwise.written_out(values())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not elementwise.written_out(values())

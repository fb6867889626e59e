"""Muon against its formula, against the singular value decomposition, and against PyTorch's own."""

import pytest
import torch
from torch import Tensor, nn

from minigpt.training import muon
from minigpt.training.muon import Muon, get_momentum, orthogonalize

SHAPES = [(8, 8), (24, 8), (8, 32), (1, 5), (5, 1), (64, 64)]


def stack(shape: tuple[int, int], n: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrices = stack(shape)
    U, S, V = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalize(matrices)
    norms = S.square().sum(dim=-1, keepdim=True).sqrt()
    s = S / norms
    for _ in range(5):  # the polynomial, on the singular values themselves
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(found, U @ torch.diag_embed(s) @ V, rtol=1e-9, atol=1e-9)
    assert (s[S / norms > 0.01] > 0.5).all()
    assert (s < 1.5).all()


def test_a_stack_is_orthogonalized_matrix_by_matrix() -> None:
    matrices = stack((24, 8))
    for i, matrix in enumerate(matrices):
        torch.testing.assert_close(orthogonalize(matrices)[i], orthogonalize(matrix[None])[0])


def test_a_zero_gradient_moves_nothing() -> None:
    assert not orthogonalize(torch.zeros(2, 4, 3)).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_bfloat16_the_iteration_is_pytorchs(shape: tuple[int, int]) -> None:
    theirs = getattr(torch.optim._muon, "_zeropower_via_newtonschulz")  # noqa: B009  # a private name
    for matrix in stack(shape).float():
        expected = theirs(matrix, (muon.A, muon.B, muon.C), 5, muon.EPSILON)
        found = orthogonalize(matrix.bfloat16()[None])[0]
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_steps_equal_those_of_pytorchs_muon(
    shape: tuple[int, int], weight_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its iteration in 64 bits, which PyTorch's own rounds to bfloat16, the two optimizers are one function."""
    monkeypatch.setattr(
        torch.optim._muon,
        "_zeropower_via_newtonschulz",
        lambda gradient, coefficients, steps, eps: orthogonalize(gradient[None], steps)[0],
    )
    start = stack(shape)
    ours = nn.Parameter(start.clone())
    theirs = [nn.Parameter(matrix.clone()) for matrix in start]
    mine = Muon([ours], lr=0.02, weight_decay=weight_decay)
    library = torch.optim.Muon(theirs, lr=0.02, weight_decay=weight_decay, momentum=muon.MOMENTUM, nesterov=True)
    for seed in range(1, 6):
        ours.grad = stack(shape, seed=seed)
        for parameter, gradient in zip(theirs, ours.grad, strict=True):
            parameter.grad = gradient.clone()
        mine.step()
        library.step()
    torch.testing.assert_close(ours.detach(), torch.stack([p.detach() for p in theirs]), rtol=1e-10, atol=1e-10)


def test_with_products_of_bfloat16_steps_are_pytorchs_within_its_rounding() -> None:
    start = stack((24, 8)).float()
    ours = nn.Parameter(start.clone())
    theirs = [nn.Parameter(matrix.clone()) for matrix in start]
    mine = Muon([ours], lr=0.02, weight_decay=0.1, dtype=torch.bfloat16)
    library = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=muon.MOMENTUM, nesterov=True)
    ours.grad = stack((24, 8), seed=1).float()
    for parameter, gradient in zip(theirs, ours.grad, strict=True):
        parameter.grad = gradient.clone()
    mine.step()
    library.step()
    moved = torch.stack([p.detach() for p in theirs])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.detach(), moved, rtol=0, atol=0.02 * 0.05)


def test_momentum_rises_in_the_first_steps() -> None:
    assert get_momentum(0) == pytest.approx(0.85)
    assert get_momentum(50) == pytest.approx(0.90)
    assert get_momentum(100) == get_momentum(10_000) == 0.95

"""Attention with its gradient written out, against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from minigpt.kernels import causal_attention as attention
from minigpt.kernels.causal_attention import causal_attention


@pytest.mark.parametrize("shape", [(2, 3, 7, 4), (1, 1, 1, 1), (3, 2, 64, 16), (1, 2, 65, 4), (2, 1, 200, 8)], ids=str)
def test_values_and_gradients_are_pytorchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3)]
    weights = torch.randn(shape, dtype=torch.float64, generator=generator)
    found, expected = causal_attention(*parts), F.scaled_dot_product_attention(*parts, is_causal=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    ours = torch.autograd.grad((found * weights).sum(), parts)
    theirs = torch.autograd.grad((expected * weights).sum(), parts)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_long_windows_and_those_without_gradients_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "attention_weights", None)  # a call would fail
    long = torch.randn(1, 1, attention.LONGEST + 1, 2, requires_grad=True)
    causal_attention(long, long, long)
    with torch.no_grad():
        causal_attention(long[:, :, :5], long[:, :, :5], long[:, :, :5])


def test_nothing_is_computed_of_what_no_stretch_heeds() -> None:
    q = torch.randn(1, 2 * attention.STRETCH + 3, 4)
    weights = attention.attention_weights(q, q)
    assert [part.shape[1:] for part in weights] == [(64, 64), (64, 128), (3, 131)]
    whole = torch.cat([F.pad(part, (0, q.shape[1] - part.shape[2])) for part in weights], dim=1)
    assert not whole.triu(1).any()
    torch.testing.assert_close(whole.sum(dim=-1), torch.ones(q.shape[:2]))

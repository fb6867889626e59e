"""Attention with a hand-written gradient, against PyTorch's."""

import pytest
import torch
from torch.nn import functional as F

from minigpt.kernels.causal_attention import CHUNK, MAX_LENGTH, StoredCausalAttention, compute_attention_weights

attend = StoredCausalAttention()


@pytest.mark.parametrize("shape", [(2, 3, 7, 4), (1, 1, 1, 1), (3, 2, 64, 16), (1, 2, 65, 4), (2, 1, 200, 8)], ids=str)
def test_values_and_gradients_are_pytorchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3)]
    weights = torch.randn(shape, dtype=torch.float64, generator=generator)
    found, expected = attend(*parts), F.scaled_dot_product_attention(*parts, is_causal=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    ours = torch.autograd.grad((found * weights).sum(), parts)
    theirs = torch.autograd.grad((expected * weights).sum(), parts)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_long_windows_and_chunks_after_a_cache_are_left_to_pytorch() -> None:
    long = torch.randn(1, 1, MAX_LENGTH + 1, 2, requires_grad=True)
    assert "CausalAttention" not in type(attend(long, long, long).grad_fn).__name__
    short = long[:, :, :5]
    assert "CausalAttention" in type(attend(short, short, short).grad_fn).__name__
    mask = torch.ones(2, 5, dtype=torch.bool).tril(3)
    torch.testing.assert_close(attend(short[:, :, 3:], short, short, mask), attend(short, short, short)[:, :, 3:])


def test_no_weight_is_computed_after_the_last_query_of_a_chunk() -> None:
    q = torch.randn(1, 2 * CHUNK + 3, 4)
    weights = compute_attention_weights(q, q)
    assert [part.shape[1:] for part in weights] == [(64, 64), (64, 128), (3, 131)]
    whole = torch.cat([F.pad(part, (0, q.shape[1] - part.shape[2])) for part in weights], dim=1)
    assert not whole.triu(1).any()
    torch.testing.assert_close(whole.sum(dim=-1), torch.ones(q.shape[:2]))

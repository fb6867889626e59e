"""The filters against transformers' logits warpers; the sampled tokens against their distribution."""

import pytest
import torch
from lazy_module import LazyModule
from torch.nn import functional as F

from minigpt.generation.filters import apply_temperature, keep_top_k, keep_top_p, sample_token

transformers = LazyModule("transformers")


def random_logits(seed: int, B: int = 16, V: int = 65) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, V, generator=generator) * 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 2.5])
def test_temperature_equals_transformers(seed: int, temperature: float) -> None:
    logits = random_logits(seed)
    assert torch.equal(
        apply_temperature(logits, temperature), transformers.TemperatureLogitsWarper(temperature)(None, logits)
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 10, 65, 1000])
def test_top_k_equals_transformers_ties_included(seed: int, k: int) -> None:
    for logits in (random_logits(seed), random_logits(seed).round()):
        assert torch.equal(keep_top_k(logits, k), transformers.TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("p", [1e-9, 0.01, 0.3, 0.9, 0.999, 1.0])
def test_top_p_equals_transformers(seed: int, p: float) -> None:
    logits = random_logits(seed)
    assert torch.equal(keep_top_p(logits, p), transformers.TopPLogitsWarper(p)(None, logits))
    kept = torch.isfinite(keep_top_p(logits, p))
    mass = (F.softmax(logits, dim=-1) * kept).sum(dim=-1)
    assert (mass >= p - 1e-5).all()


def test_draw_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).log().expand(6, -1)
    uniforms = torch.tensor([0.0, 0.199, 0.201, 0.699, 0.701, 1 - 2**-53], dtype=torch.float64)
    assert sample_token(logits, uniforms).tolist() == [0, 0, 2, 2, 3, 3]


def test_draw_never_takes_what_has_no_weight() -> None:
    logits = random_logits(0, B=1).expand(20_000, -1)
    few = keep_top_k(logits, 5)
    uniforms = torch.rand(20_000, dtype=torch.float64)
    uniforms[:2] = torch.tensor([0.0, 1 - 2**-53])
    assert torch.isfinite(few.gather(1, sample_token(few, uniforms)[:, None])).all()


def test_draw_follows_the_distribution() -> None:
    logits = random_logits(1, B=1, V=8)
    n = 200_000
    uniforms = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = sample_token(logits.expand(n, -1), uniforms).bincount(minlength=8)
    expected = F.softmax(logits[0].double(), dim=-1) * n
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_squared < 24.3  # 7 degrees of freedom: one honest draw in a thousand is above

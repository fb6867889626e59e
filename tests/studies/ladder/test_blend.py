"""The blend of two models' predictions against its formula."""

import pytest
import torch

from minigpt.studies.ladder.blend import blend_losses, find_best_weight


def test_the_blend_mixes_probabilities() -> None:
    a, b = torch.rand(50, dtype=torch.float64) * 9, torch.rand(50, dtype=torch.float64) * 9
    for weight in (0.0, 0.3, 1.0):
        assert blend_losses(a, b, weight).allclose(-((1 - weight) * (-a).exp() + weight * (-b).exp()).log())


def test_the_blend_of_extreme_losses_is_finite() -> None:
    a, b = torch.tensor([2000.0, 0.0]), torch.tensor([3000.0, 5000.0])
    assert blend_losses(a, b, 0.5).tolist() == pytest.approx([2000.6931, 0.6931], rel=1e-4)


def test_the_best_weight_has_the_lowest_loss() -> None:
    a = torch.cat([torch.full((70,), 0.1), torch.full((30,), 5.0)]).double()
    b = torch.cat([torch.full((70,), 5.0), torch.full((30,), 0.1)]).double()
    weight = find_best_weight(a, b)
    around = [blend_losses(a, b, weight + step).mean() for step in (-0.02, 0.02)]
    assert blend_losses(a, b, weight).mean() < min(around)
    assert weight == pytest.approx(0.3, abs=0.02)
    assert find_best_weight(a, torch.full((100,), 50.0)) == 0
    assert find_best_weight(torch.full((100,), 50.0), b) == 1

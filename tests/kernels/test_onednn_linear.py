"""The linear layer against nn.Linear, by whichever product it is made."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minigpt.kernels.onednn_linear import HAS_ONEDNN, OneDNNLinear, can_use_onednn, linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (512, 64, 192), (33, 256, 65), (1, 64, 256)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_values_and_gradients_are_those_of_nn_linear(
    dtype: torch.dtype, tolerance: float, shape: tuple[int, int, int], bias: bool
) -> None:
    N, inputs, outputs = shape
    torch.manual_seed(N)
    theirs = nn.Linear(inputs, outputs, bias=bias, dtype=dtype)
    ours = OneDNNLinear(inputs, outputs, bias=bias, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    x, weights = torch.randn(N, inputs, dtype=dtype), torch.randn(N, outputs, dtype=dtype)
    found = []
    for layer in (theirs, ours):
        rows = x.clone().requires_grad_()
        out = layer(rows)
        (out * weights).sum().backward()
        found.append([out, rows.grad, *(p.grad for p in layer.parameters())])
    for expected, tensor in zip(*found, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=tolerance, atol=tolerance * inputs**0.5 * N**0.5)


def test_frozen_weights_get_no_gradient_and_inputs_still_do() -> None:
    layer = OneDNNLinear(8, 4).requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand(3, 8))


def test_views_that_are_not_contiguous_are_multiplied_alike() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(16, 20).T[2:18], torch.randn(16, 40)[:, ::2].T[:5].contiguous()
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


@pytest.mark.skipif(not HAS_ONEDNN, reason="this build of PyTorch has no oneDNN")
def test_only_float32_on_a_cpu_goes_to_onednn() -> None:
    x, weight = torch.randn(4, 8), torch.randn(2, 8)
    assert can_use_onednn(x, weight)
    assert can_use_onednn(x[None], weight)
    assert not can_use_onednn(x.double(), weight.double())
    assert not can_use_onednn(x[:0], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_use_onednn(x, weight)
        assert linear(x, weight).dtype == torch.bfloat16


def test_all_leading_dimensions_are_rows() -> None:
    layer, x = OneDNNLinear(8, 2), torch.randn(3, 5, 8)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x[0, 0]), F.linear(x[0, 0], layer.weight, layer.bias))

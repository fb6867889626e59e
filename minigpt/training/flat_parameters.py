"""A model's parameters moved into a few long tensors, so that the optimizer updates all of them in a few calls."""

from collections import defaultdict

import torch
from torch import Tensor, nn

ALIGNMENT = 16  # numbers: each parameter begins at a multiple of 64 bytes, for the widest loads of a processor


def flatten_parameters(model: nn.Module, stack: bool = False) -> list[nn.Parameter]:
    """Move the trainable parameters of a model into a few long ones, and return those.

    Each parameter becomes a view of a long one, and its gradient a view of the long one's gradient, which starts at
    zero. The optimizer then updates a few long tensors and not many small ones.

    Args:
        model: the model; its parameters keep their names, shapes and values.
        stack: whether to keep the blocks' matrices apart, stacked by shape, for Muon.

    Returns:
        One parameter (1, N) of all matrices, one (N,) of all vectors, and if `stack` one (n, r, c) for each shape of a
        block's matrices. An empty one is left out.
    """
    by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad and p.dim() >= 2:
            (by_shape[p.shape] if stack and name.startswith("blocks.") else matrices).append(p)
        elif p.requires_grad:
            vectors.append(p)
    flat = [_concatenate(parameters) for parameters in (matrices, vectors) if parameters]
    return flat + [_stack(parameters) for parameters in by_shape.values()]


def _concatenate(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Return one long parameter with these as views: a row (1, N) if they are matrices, else (N,)."""
    sizes = [-(-p.numel() // ALIGNMENT) * ALIGNMENT for p in parameters]
    values = parameters[0].new_zeros(sum(sizes))
    return _make_views(values[None] if parameters[0].dim() >= 2 else values, parameters, sizes)


def _stack(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Return one parameter (n, r, c) with these n matrices (r, c) as views."""
    values = parameters[0].new_zeros(len(parameters), *parameters[0].shape)
    return _make_views(values, parameters, [p.numel() for p in parameters])


def _make_views(values: Tensor, parameters: list[nn.Parameter], sizes: list[int]) -> nn.Parameter:
    """Return a parameter that owns `values`, and make the given parameters views of it, `sizes` numbers apart."""
    flat = nn.Parameter(values)
    flat.grad = torch.zeros_like(flat)
    views = zip(parameters, values.view(-1).split(sizes), flat.grad.view(-1).split(sizes), strict=True)
    for parameter, view, gradient in views:
        view = view[: parameter.numel()].view_as(parameter)
        parameter.data = view.copy_(parameter.data)
        parameter.grad = gradient[: parameter.numel()].view_as(parameter)
    return flat

"""What the checks of the exercises with PyTorch share: inputs, weights, and running a module."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.config import ModelConfig
from minigpt.learn.exercise import Case, WorkbookError
from minigpt.learn.outcomes import SEED, is_same, to_plain

MODULE_IMPORTS = """
import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig
"""


class GradientDescent:
    """Plain gradient descent, as torch.optim.SGD does it without momentum.

    The first use of torch.optim in a process imports PyTorch's compiler, which takes seconds.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": [*parameters], "lr": lr}]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None if set_to_none or parameter.grad is None else torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self) -> None:
        """Move each parameter against its gradient, `lr` times as far."""
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter -= self.param_groups[0]["lr"] * parameter.grad


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Return normally distributed numbers; the same seed gives the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randint(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Return random ids below `high`, int64; the same seed gives the same."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def make_config(n_embd: int, n_head: int, block_size: int = 8, dropout: float = 0.0, n_layer: int = 2) -> ModelConfig:
    """Return the configuration of a small model."""
    return ModelConfig(
        vocab_size=7, n_embd=n_embd, n_head=n_head, block_size=block_size, dropout=dropout, n_layer=n_layer
    )


def draw_weights(reference: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Return random weights for a module, large enough that each part shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.6 * torch.randn(p.shape, generator=generator) for name, p in reference.named_parameters()}


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into a module by their names. Raise WorkbookError if the names or the shapes differ."""
    parameters = dict(module.named_parameters())
    missing, unexpected = weights.keys() - parameters.keys(), parameters.keys() - weights.keys()
    if missing or unexpected:
        lacks = f" It lacks {_join(missing)}." if missing else ""
        extra = f" The exercise does not know {_join(unexpected)}." if unexpected else ""
        raise WorkbookError(
            f"{type(module).__name__} must have the layers that the text names, so that weights can be loaded."
            f"{lacks}{extra}{_explain_names(module, missing)}"
        )
    for name, weight in weights.items():
        if parameters[name].shape != weight.shape:
            shapes = f"{tuple(parameters[name].shape)} and must be {tuple(weight.shape)}"
            raise WorkbookError(f"The shape of {name} in {type(module).__name__} is {shapes}.")
        with torch.no_grad():
            parameters[name].copy_(weight)


def _explain_names(module: nn.Module, missing: set[str]) -> str:
    """Return what may be wrong with the names of layers, or an empty string."""
    for name in sorted({name.split(".")[0] for name in missing}):
        value = getattr(module, name, None)
        if isinstance(value, list | tuple):
            return f" self.{name} is a {type(value).__name__}, in which PyTorch sees no layers: use nn.ModuleList(...)."
        if isinstance(value, nn.ModuleList | nn.Sequential):
            if len({*map(id, value)}) < len(value):
                return f" self.{name} holds the same module several times: [a] * n does not make n of them."
            return f" self.{name} has {', '.join(type(layer).__name__ for layer in value)}, numbered from 0."
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            return f" self.{name} is a tensor, in which PyTorch sees no weight: use nn.Parameter(...)."
    return ""


def _join(names: set[str]) -> str:
    """Return a few of the names."""
    first = sorted(names)[:4]
    return ", ".join(first) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def run_module(module: nn.Module, weights: dict[str, Tensor], *inputs: Tensor) -> dict[str, Any]:
    """Load weights, compute the output in evaluation mode, and the gradients.

    Args:
        module: the learner's, the reference or a wrong variant.
        weights: its weights.
        *inputs: its inputs; those with floats get a gradient.

    Returns:
        The output, and the gradients by name.
    """
    if not isinstance(module, nn.Module):
        raise WorkbookError(f"{type(module).__name__} must be an nn.Module.")
    load_weights(module, weights)
    module.eval()
    torch.default_generator.manual_seed(SEED)  # the same dropout, however many numbers the construction drew
    inputs = tuple(x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs)
    output = module(*inputs)
    parts = output if isinstance(output, tuple) else (output,)
    total = sum(weigh(part) for part in parts if isinstance(part, Tensor) and part.requires_grad)
    if isinstance(total, Tensor):
        total.backward()
    gradients = {f"the gradient of the input {n}": x.grad for n, x in enumerate(inputs, 1) if x.is_floating_point()}
    gradients |= {f"the gradient of {name}": p.grad for name, p in module.named_parameters()}
    return {"the output": list(parts) if isinstance(output, tuple) else output, **gradients}


def weigh(tensor: Tensor) -> Tensor:
    """Return a sum in which each number has a weight of its own, so that gradients show where it came from."""
    weights = torch.cos(torch.arange(tensor.numel(), dtype=tensor.dtype)).view(tensor.shape)
    return (tensor * weights).sum()


def make_module_case(
    reference: type[nn.Module], config: ModelConfig, make_inputs: Callable[[], tuple[Tensor, ...]], about: str
) -> Case:
    """Return a case that runs a module with random weights, which are the same for the learner's and the reference.

    Args:
        reference: the reference; the learner's class has its name.
        config: the shape of the module.
        make_inputs: makes the inputs.
        about: what the inputs are, for a message.
    """
    weights, name = draw_weights(reference(config)), reference.__name__
    about = f"{name}, n_embd {config.n_embd}, n_head {config.n_head}, {about}"
    return Case(about, lambda my: run_module(getattr(my, name)(config), weights, *make_inputs()))


def make_dropout_case(reference: type[nn.Module]) -> Case:
    """Return a case that says which share of the output dropout removes in training mode.

    The learner's code may draw its random numbers in any order, so the numbers themselves are not compared. A module
    with another mistake is left out: with or without dropout, its mistake is named.

    Args:
        reference: the reference; the learner's class has its name.
    """
    config, name = make_config(8, 2, dropout=0.9), reference.__name__
    weights, x, text = draw_weights(reference(config)), randn(4000, 1, 8), randn(3, 5, 8, seed=2)

    @torch.no_grad()
    def compute(my: Any) -> Any:
        right, module = reference(config).eval(), getattr(my, name)(config).eval()
        load_weights(right, weights)
        load_weights(module, weights)
        if not is_same(to_plain(right(text)), to_plain(module(text))):
            return "the output in evaluation mode is wrong"
        removed = module.train()(x) == 0
        return {
            "the share of zeros in the output": round(removed.double().mean().item(), 1),
            "the share of positions with zeros only": round(removed.all(dim=-1).double().mean().item(), 1),
        }

    return Case(f"{name} in training mode, dropout 0.9", compute)


def make_layer_cases(reference: type[nn.Module]) -> tuple[Case, ...]:
    """Return the cases of a module that maps (B, T, C): T of 1, a batch of 1, an odd head size, and with dropout."""
    return tuple(
        make_module_case(
            reference,
            config,
            functools.partial(_make_input, shape),
            f"x of shape {shape}{', dropout 0.5 in evaluation' if config.dropout else ''}",
        )
        for config, shape in (
            (make_config(2, 1), (1, 1, 2)),
            (make_config(4, 2), (1, 2, 4)),
            (make_config(9, 3), (2, 5, 9)),
            (make_config(8, 2, dropout=0.5), (2, 8, 8)),
        )
    )


def _make_input(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return the only input of a layer."""
    return (randn(*shape),)

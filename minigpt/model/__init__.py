"""The models: tensors in, tensors out."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minigpt.config import ModelConfig
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel


class LanguageModel(Protocol):
    """What the rest of the project relies on in a model: any `nn.Module` with this forward and a config."""

    config: ModelConfig
    training: bool

    def __call__(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Any]:
        """Token ids (B, T) to logits (B, T, V), and the mean loss in nats if `targets` (B, T) are given."""

    def train(self, mode: bool = True) -> Any:
        """Dropout on, or off."""

    def eval(self) -> Any:
        """Dropout off."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is learned."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same with names."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that is saved."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take over what was saved."""


def build(config: ModelConfig) -> BigramLanguageModel | GPTLanguageModel:
    """A new model of the config's architecture, its weights drawn from torch's global generator."""
    return BigramLanguageModel(config) if config.architecture == "bigram" else GPTLanguageModel(config)


def build_shape(config: ModelConfig) -> BigramLanguageModel | GPTLanguageModel:
    """The same model without memory or values, on the meta device, for weights that will be loaded."""
    with torch.device("meta"), _NoValues():
        return build(config)


class _NoValues(TorchFunctionMode):
    """Skips what only sets values: for a meta tensor that means nothing, and would import PyTorch's compiler."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.tril or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(p.numel() for p in model.parameters())

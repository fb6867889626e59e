"""The models: tensors in, tensors out."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minigpt.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
from minigpt.model.modern import Modern


class Context(Protocol):
    """What sampling and measuring ask of a model's config."""

    @property
    def block_size(self) -> int:
        """How many tokens the model sees at most."""

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are."""


TrainedModel = BigramLanguageModel | GPTLanguageModel | GPT | Modern  # what a run holds


class LanguageModel(Protocol):
    """What sampling and measuring ask of a model: a torch module that knows how far it sees."""

    training: bool

    @property
    def config(self) -> Context:
        """Its shape."""

    def __call__(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Any]:
        """Token ids (B, T) to logits (B, T, V), and the mean loss in nats if `targets` (B, T) are given."""

    def train(self, mode: bool = True) -> Any:
        """Dropout on, or off."""

    def eval(self) -> Any:
        """Dropout off."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What it learns."""

    def buffers(self) -> Iterator[Tensor]:
        """What it holds besides."""


def network(config: ModelConfig) -> type[TrainedModel]:
    """The class that the config asks for."""
    if config.architecture == "bigram":
        return BigramLanguageModel
    if config.architecture == "modern":
        return Modern
    return GPTLanguageModel if config.implementation == "lecture" else GPT


def build(config: ModelConfig) -> TrainedModel:
    """A new model, its weights drawn from torch's global generator.

    Both implementations of the lecture's transformer start with the same weights from the same seed.
    """
    if network(config) is GPT and config.is_lecture:
        with _NoMasks():
            lecture = GPTLanguageModel(config)
        return GPT.from_lecture(lecture.state_dict(), config.dropout)
    return network(config)(config)


class _NoMasks(TorchFunctionMode):
    """Leaves out the (T, T) mask of every head of the lecture's model: only its weights are wanted."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return torch.empty(0) if func in (torch.ones, torch.tril) else func(*args, **(kwargs or {}))


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(p.numel() for p in model.parameters())

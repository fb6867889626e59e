"""What all language models have in common, and how to build one from its configuration."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minigpt.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
from minigpt.model.modern import Modern

TrainedModel = BigramLanguageModel | GPTLanguageModel | GPT | Modern  # the models of a run


class ModelShape(Protocol):
    """What generation and evaluation ask of a model's configuration."""

    @property
    def block_size(self) -> int:
        """The largest number of tokens that the model sees."""

    @property
    def vocab_size(self) -> int:
        """The number of different tokens."""


class LanguageModel(Protocol):
    """What generation and evaluation ask of a model: a torch module that has a configuration."""

    training: bool

    @property
    def config(self) -> ModelShape:
        """The shape of the model."""

    def __call__(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Any]:
        """Token ids (B, T) -> logits (B, T, V), and the mean loss in nats, or None without `targets` (B, T)."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout on or off."""

    def eval(self) -> Any:
        """Switch dropout off."""

    def modules(self) -> Iterator[nn.Module]:
        """Return the model and all its parts."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the tensors that are trained."""

    def buffers(self) -> Iterator[Tensor]:
        """Return the tensors that are not trained."""


def get_model_class(config: ModelConfig) -> type[TrainedModel]:
    """Return the class of the model that a configuration describes."""
    if config.architecture == "bigram":
        return BigramLanguageModel
    if config.architecture == "modern":
        return Modern
    return GPTLanguageModel if config.implementation == "lecture" else GPT


def build(config: ModelConfig) -> TrainedModel:
    """Build a model with new weights, drawn from torch's global generator.

    With the same seed, both implementations of the lecture's transformer get the same weights.
    """
    if get_model_class(config) is GPT and config.is_lecture:
        with _MaskSkipper():
            lecture = GPTLanguageModel(config)
        return GPT.from_lecture(lecture.state_dict(), config.dropout)
    return get_model_class(config)(config)


class _MaskSkipper(TorchFunctionMode):
    """Skips the (T, T) mask of each head of the lecture's model, since only the weights are needed."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return torch.empty(0) if func in (torch.ones, torch.tril) else func(*args, **(kwargs or {}))


@contextmanager
def evaluation_mode(model: nn.Module | LanguageModel) -> Iterator[None]:
    """Switch dropout off within the block. Afterwards the model has its former mode, also after an error."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


def get_device(model: nn.Module | LanguageModel) -> torch.device:
    """Return the device of the model's weights."""
    return next(itertools.chain(model.parameters(), model.buffers())).device


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that a model learns."""
    return sum(p.numel() for p in model.parameters())

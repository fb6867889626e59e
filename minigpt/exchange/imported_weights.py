"""The model of an import without its weights, and the tensors that are checked against it before they are used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.errors import ExchangeError
from minigpt.model.gpt import GPT
from minigpt.model.language_model import TrainedModel
from minigpt.model.meta_init import build_empty_model

_COMPILED = "_orig_mod."  # what torch.compile puts before each name


def build_imported_model(config: ModelConfig, where: str) -> TrainedModel:
    """Build a model that has no values yet. Raise ExchangeError, with the file, if no model can be that large."""
    try:
        return build_empty_model(config)
    except RuntimeError:
        raise ExchangeError(f"{where} is damaged: no model can be as large as it says") from None


def build_imported_gpt(config: ModelConfig, where: str) -> GPT:
    """Build a GPT as `build_imported_model` does."""
    model = build_imported_model(config, where)
    assert isinstance(model, GPT)
    return model


def require_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return a state dict without the prefix of a compiled model.

    Args:
        content: what a file holds.
        path: the file, for the message.

    Raises:
        ExchangeError: it is not a dict of tensors, or a tensor claims more numbers than it has.
    """
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ExchangeError(f"{str(path)!r} holds no state dict, which is a dict of tensors by their names")
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ExchangeError(f"{str(path)!r} cannot be read: {name!r} is no plain tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ExchangeError(f"{str(path)!r} is damaged: {name!r} has a shape of more numbers than the file holds")
    return {name.removeprefix(_COMPILED): tensor for name, tensor in content.items()}


def convert_tensor(tensor: Tensor, name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    """Return a tensor in float32 and contiguous.

    Raises:
        ExchangeError: it has another shape, holds no floating-point numbers, or one that is not finite.
    """
    if tuple(tensor.shape) != shape:
        sizes = f"{name} is of shape {list(tensor.shape)}, not {list(shape)}"
        raise ExchangeError(f"{str(path)!r} does not fit its own sizes: {sizes}")
    return convert_to_float32(tensor, name, path)


def convert_to_float32(tensor: Tensor, name: str, path: Path) -> Tensor:
    """Return a tensor in float32 and contiguous.

    Raises:
        ExchangeError: it holds no floating-point numbers, or one that is not finite.
    """
    if not tensor.is_floating_point():
        raise ExchangeError(f"{str(path)!r} cannot be read: the numbers of {name} are of type {tensor.dtype}")
    converted = tensor.detach().to(torch.float32).contiguous()
    if not converted.isfinite().all():
        raise ExchangeError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")
    return converted

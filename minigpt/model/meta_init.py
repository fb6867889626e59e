"""A model on the meta device, without memory or values, for weights that will be loaded."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from minigpt.config import ModelConfig
from minigpt.model.language_model import TrainedModel, get_model_class


def build_empty_model(config: ModelConfig) -> TrainedModel:
    """Build the model of a configuration with names and shapes only.

    A file of weights can then be compared with the model before memory is reserved. The configuration alone is not
    trusted: it may come from a damaged or hostile run.
    """
    with torch.device("meta"), _InitializationSkipper():
        return get_model_class(config)(config)


class _InitializationSkipper(TorchFunctionMode):
    """Skips functions that set values. On a meta tensor they do nothing, and would import PyTorch's compiler."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.tril or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))

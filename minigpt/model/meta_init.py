"""A model without memory or values, for weights that will be loaded."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from minigpt.config import ModelConfig
from minigpt.model import TrainedModel, network


def build_empty(config: ModelConfig) -> TrainedModel:
    """The model that `build` makes, on the meta device: it has names and shapes only.

    So a file can be held against it before any memory is asked for on the word of a config.
    """
    with torch.device("meta"), _NoValues():
        return network(config)(config)


class _NoValues(TorchFunctionMode):
    """Skips what only sets values: for a meta tensor that means nothing, and would import PyTorch's compiler."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.tril or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))

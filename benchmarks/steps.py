"""A step of `minigpt train`, for the benchmarks that time or weigh one."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from minigpt.config import Config
from minigpt.distributed.process_group import SINGLE, Processes
from minigpt.training.loop import train_step
from minigpt.training.optimizer import Optimizer
from minigpt.training.training_state import TrainingState
from minigpt.training.wrapping import wrap_model


class FixedBatch:
    """One batch (x, y), again and again."""

    position, skip_positions = 0, ()

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.batch = x, y

    def get_batch(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the batch."""
        return self.batch

    def count_targets(self, y: Tensor) -> int:
        """Return the number of targets: all of them."""
        return y.numel()


def make_step(model: nn.Module, config: Config, data: Any, processes: Processes = SINGLE) -> Callable[[], float]:
    """Return a function that makes one training step and returns its loss."""
    stack = ExitStack()
    wrapped = stack.enter_context(wrap_model(model, config, processes))
    training = config.training
    state = TrainingState(model, data, Optimizer(wrapped.parameters, training), training, processes)

    def step() -> float:
        assert stack  # if nothing refers to it, the model is no longer wrapped, and has no gradients
        return train_step(wrapped, state)

    return step

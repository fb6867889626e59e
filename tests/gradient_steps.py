"""A model ready for single steps of training on given batches."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from minigpt.config import Config
from minigpt.distributed.process_group import SINGLE, Processes
from minigpt.model.loss import IGNORE_INDEX
from minigpt.training.optimizer import Optimizer
from minigpt.training.training_state import TrainingState
from minigpt.training.wrapping import WrappedModel, wrap_model


class FixedBatches:
    """The given batches (x, y), again and again."""

    position, skip_positions = 0, ()

    def __init__(self, *batches: tuple[Tensor, Tensor]) -> None:
        self.batches = itertools.cycle(batches)

    def get_batch(self, split: str) -> tuple[Tensor, Tensor]:
        return next(self.batches)

    def count_targets(self, y: Tensor) -> int:
        return int((y != IGNORE_INDEX).sum())


@contextmanager
def prepare_steps(
    model: nn.Module, config: Config, *batches: Any, processes: Processes = SINGLE
) -> Iterator[tuple[WrappedModel, TrainingState]]:
    """The arguments of `compute_gradients` and `train_step`; a single dataset may stand in place of the batches."""
    data = batches[0] if len(batches) == 1 and hasattr(batches[0], "get_batch") else FixedBatches(*batches)
    with wrap_model(model, config) as wrapped:
        optimizer = Optimizer(wrapped.parameters, config.training)
        yield wrapped, TrainingState(model, data, optimizer, config.training, processes)

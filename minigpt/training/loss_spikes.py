"""Detect a loss that jumps or is no longer a finite number."""

import math

import torch
from torch import Tensor

from minigpt.config import TrainingConfig
from minigpt.errors import DivergedError, RunError

MAX_STATE = 2**53  # number of losses, or nats; more is damage


class LossSpikeDetector:
    """Keeps a running mean and standard deviation of the batches' losses, and raises an error when the loss diverges.

    A loss is high if it is above the mean by ten standard deviations and by one nat. One high loss may come from an odd
    batch, such as a line of base64 in a log. The training has diverged if the losses after it stay high.
    """

    DECAY, MIN_LOSSES, DEVIATIONS, NATS = 0.99, 100, 10, 1.0
    MAX_HIGH = 50  # high losses in a row

    def __init__(self) -> None:
        self.count, self.mean, self.mean_square = 0, 0.0, 0.0
        self.high, self.first_high, self.first_step, self.first_position = 0, 0.0, 0, 0

    @property
    def is_suspicious(self) -> bool:
        """True while the last loss was high, and it is not clear yet whether the losses stay high."""
        return self.high > 0

    def check(self, loss: float, step: int, position: int, config: TrainingConfig) -> None:
        """Add a batch's loss.

        Args:
            loss: the loss in nats.
            step: the number of steps done before this one.
            position: the data's position after the batch.
            config: for the advice in the message.

        Raises:
            DivergedError: the losses stay high, or this one is not finite.
        """
        require_finite(loss, step, config)
        deviation = math.sqrt(max(0.0, self.mean_square - self.mean**2))
        if self.count >= self.MIN_LOSSES and loss - self.mean > max(self.DEVIATIONS * deviation, self.NATS):
            if not self.high:
                self.first_high, self.first_step, self.first_position = loss, step, position
            self.high += 1
            if self.high > self.MAX_HIGH:
                raise DivergedError(
                    f"the loss jumps from {self.mean:.2f} to {self.first_high:.2f} at step {self.first_step} and stays "
                    f"high: try {_describe_lower_rates(config)}, or grad_clip 1"
                )
            return
        self.high = 0
        keep = min(self.DECAY, self.count / (self.count + 1))
        self.mean = keep * self.mean + (1 - keep) * loss
        self.mean_square = keep * self.mean_square + (1 - keep) * loss**2
        self.count += 1

    def state_dict(self) -> Tensor:
        """Return what `load_state_dict` needs: (7,), float64."""
        first = (self.first_high, self.first_step, self.first_position)
        return torch.tensor([self.count, self.mean, self.mean_square, self.high, *first], dtype=torch.float64)

    def load_state_dict(self, state: Tensor) -> None:
        """Continue from that state. Raise RunError for numbers that no training has."""
        if not (state.abs() < MAX_STATE).all() or min(state[0], state[3]) < 0:
            raise RunError(f"a checkpoint is damaged: the mean of {state[0]:g} losses is {state[1]:g}")
        count, self.mean, self.mean_square, high, self.first_high, step, position = state.tolist()
        self.count, self.high, self.first_step, self.first_position = int(count), int(high), int(step), int(position)


def require_finite(loss: float, step: int, config: TrainingConfig) -> None:
    """Raise DivergedError unless the loss is a finite number."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {step}: training diverged; "
            f"try {_describe_lower_rates(config)}, such as {config.learning_rate / 10:g}"
        )


def _describe_lower_rates(config: TrainingConfig) -> str:
    muon = f"a muon_learning_rate below {config.muon_learning_rate:g} or " if config.optimizer == "muon" else ""
    return f"{muon}a learning_rate below {config.learning_rate:g}"

"""Detect a loss that jumps or is no longer a finite number."""

import math

import torch
from torch import Tensor

from minigpt.config import TrainingConfig
from minigpt.errors import DivergedError, RunError

MAX_STATE = 2**53  # number of losses, or nats; more is damage


class LossSpikeDetector:
    """Keeps a running mean and standard deviation of the batches' losses, and raises an error when the loss jumps.

    A loss is a spike if it is above the mean by ten standard deviations and by one nat.
    """

    DECAY, MIN_LOSSES, DEVIATIONS, NATS = 0.99, 100, 10, 1.0

    def __init__(self) -> None:
        self.count, self.mean, self.mean_square = 0, 0.0, 0.0

    def check(self, loss: float, step: int, config: TrainingConfig) -> None:
        """Add a batch's loss in nats. Raise DivergedError if it is a spike or not finite."""
        require_finite(loss, step, config)
        deviation = math.sqrt(max(0.0, self.mean_square - self.mean**2))
        if self.count >= self.MIN_LOSSES and loss - self.mean > max(self.DEVIATIONS * deviation, self.NATS):
            raise DivergedError(
                f"the loss jumps from {self.mean:.2f} to {loss:.2f} at step {step}: "
                f"try {_describe_lower_rates(config)}, or grad_clip 1"
            )
        keep = min(self.DECAY, self.count / (self.count + 1))
        self.mean = keep * self.mean + (1 - keep) * loss
        self.mean_square = keep * self.mean_square + (1 - keep) * loss**2
        self.count += 1

    def state_dict(self) -> Tensor:
        """Return what `load_state_dict` needs: (3,), float64."""
        return torch.tensor([self.count, self.mean, self.mean_square], dtype=torch.float64)

    def load_state_dict(self, state: Tensor) -> None:
        """Continue from that state. Raise RunError for numbers that no training has."""
        count, self.mean, self.mean_square = state.tolist()
        self.count = int(count)
        if not (0 <= self.count < MAX_STATE and abs(self.mean) < MAX_STATE and abs(self.mean_square) < MAX_STATE):
            raise RunError(f"a checkpoint is damaged: the mean of {count:g} losses is {self.mean:g}")


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

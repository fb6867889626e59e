"""The interface of training data: texts, instructions and preference pairs all have these methods."""

from typing import Any, Protocol

from torch import Tensor

from minigpt.data.shards import Split


class TrainingData(Protocol):
    """A training split and a validation split, in batches.

    Attributes:
        position: training windows, or examples, drawn so far.
        skip_positions: the positions after batches that are left out, because the loss diverged there.
    """

    position: int
    skip_positions: list[int]

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the next batch of a split: x and y, both (B, T), int64."""

    def count_targets(self, y: Tensor) -> int:
        """Return the number of targets in y whose mean is the loss of its batch."""

    def get_evaluation_batch(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """Return at most `count` evenly spaced windows of a split, always the same: x and y, (N, T)."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens in both splits."""

    @property
    def tokens_per_batch(self) -> float:
        """Average number of tokens in a batch."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs: the random generator's state and the position."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""

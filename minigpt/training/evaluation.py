"""`estimate_loss`: the mean loss on the same windows of both splits each time."""

from typing import Protocol

from torch import Tensor

from minigpt.data.shards import SPLITS, Split
from minigpt.model import LanguageModel
from minigpt.model.loss import compute_mean_loss


class WindowSampler(Protocol):
    """Data that can be evaluated on."""

    def get_evaluation_batch(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """Return at most `count` evenly spaced windows of a split, always the same: x and y, (N, T)."""


def estimate_loss(model: LanguageModel, data: WindowSampler, eval_windows: int) -> dict[str, float]:
    """Return the mean loss of both splits in nats per token, as {"train": …, "val": …}.

    The windows are evenly spaced and the same each time, so two estimates differ only because the weights differ.
    Dropout is off. `compute_exact_loss` measures a whole split.

    Args:
        model: any language model; its training mode is the same afterwards.
        data: what has the windows.
        eval_windows: number of windows of each split.
    """
    batches = {split: data.get_evaluation_batch(split, eval_windows) for split in SPLITS}
    return {split: compute_mean_loss(model, x, y) for split, (x, y) in batches.items()}

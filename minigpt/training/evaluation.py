"""`estimate_loss`: a quick look at both splits, the same look every time."""

from typing import Protocol

from torch import Tensor

from minigpt.data.shards import Split
from minigpt.model import LanguageModel
from minigpt.model.loss import compute_mean_loss


class Samples(Protocol):
    """What can be looked at."""

    def sample(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """At most `count` windows or examples of a split, evenly spread, the same each time: x and y, (N, T)."""


def estimate_loss(model: LanguageModel, dataset: Samples, eval_windows: int) -> dict[str, float]:
    """The mean loss in nats on `eval_windows` windows of each split, as {"train": …, "val": …}.

    The windows are spread evenly and are the same each time, so a curve of estimates shows the
    learning and not the luck of the draw. Dropout is off. For the exact loss see `compute_exact_loss`.
    """
    return {split: compute_mean_loss(model, *dataset.sample(split, eval_windows)) for split in ("train", "val")}

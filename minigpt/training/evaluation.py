"""`estimate_loss`: a quick look at both splits, the same look every time."""

import torch
from torch import Tensor

from minigpt.model import LanguageModel
from minigpt.model.loss import mean_loss
from minigpt.text.dataset import Dataset, Ids, windows


def even_windows(ids: Ids, count: int, block_size: int) -> tuple[Tensor, Tensor]:
    """At most `count` windows spread evenly over `ids` from its start to its end: contexts and targets, (N, T)."""
    last = len(ids) - block_size - 1
    starts = torch.linspace(0, last, min(count, last + 1), dtype=torch.float64).round().long()
    return windows(ids, starts, block_size)


def estimate_loss(model: LanguageModel, dataset: Dataset, eval_windows: int) -> dict[str, float]:
    """The mean loss in nats on `eval_windows` windows of each split, as {"train": …, "val": …}.

    The windows are spread evenly and are the same each time, so a curve of estimates shows the
    learning and not the luck of the draw. Dropout is off. For the exact loss see `exact_loss`.
    """
    return {
        split: mean_loss(model, *even_windows(ids, eval_windows, dataset.block_size))
        for split, ids in (("train", dataset.train), ("val", dataset.val))
    }

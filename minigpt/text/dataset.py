"""Token ids, split in two, and random batches of them."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from minigpt.config import Config
from minigpt.errors import DataError

Split = Literal["train", "val"]


class Dataset:
    """A text as token ids: its first part to train on, the rest to validate.

    Attributes:
        train: ids of the training split, shape (N,), int64.
        val: ids of the validation split, shape (M,), int64.
        block_size: T, the length of a window.
        batch_size: B, the windows in a batch.
    """

    def __init__(self, ids: Tensor | Sequence[int], config: Config) -> None:
        """Split `ids` at `train_fraction`, contiguously, as the lecture does.

        Raises DataError if either split is too short for a single window and its targets.
        """
        ids = torch.as_tensor(ids, dtype=torch.int64)
        boundary = math.floor(config.training.train_fraction * len(ids))
        self.train, self.val = ids[:boundary], ids[boundary:]
        self.block_size = config.model.block_size
        self.batch_size = config.training.batch_size
        self.generator = torch.Generator().manual_seed(config.training.seed)
        for name, split in (("training", self.train), ("validation", self.val)):
            if len(split) < self.block_size + 1:
                raise DataError(
                    f"the {name} split has {len(split):,} tokens and block_size {self.block_size:,} needs at least "
                    f"{self.block_size + 1:,}: use a longer text or a smaller block_size"
                )

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """A batch of random windows of "train" or "val": contexts x and targets y, both (B, T).

        y is x shifted by one: y[b, t] is the token that follows x[b, : t + 1]. The windows come from
        this dataset's own generator, so the same seed gives the same batches whatever else is random.
        """
        ids = {"train": self.train, "val": self.val}[split]
        starts = torch.randint(len(ids) - self.block_size, (self.batch_size,), generator=self.generator)  # (B,)
        return windows(ids, starts, self.block_size)


def windows(ids: Tensor, starts: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """The windows of `ids` that begin at `starts` (B,): contexts and targets, both (B, T)."""
    positions = starts[:, None] + torch.arange(block_size)  # (B, 1) + (T,) -> (B, T)
    return ids[positions], ids[positions + 1]

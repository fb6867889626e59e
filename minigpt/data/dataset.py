"""Token ids, split in two, and random batches of them: in memory, or mapped from files larger than it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.config import Config, find_largest_preset
from minigpt.data.shards import PreparedData, Split, TokenFiles
from minigpt.data.shuffle import RandomPermutation
from minigpt.errors import DataError

Ids = Tensor | TokenFiles
AHEAD = 4096  # windows of a shuffled order computed at a time


class Dataset:
    """A text as token ids: its first part to train on, the rest to validate; or both as they were prepared on disk.

    Attributes:
        train: ids of the training split: (N,), int64, or files of them.
        val: ids of the validation split: (M,) likewise.
        block_size: T, the length of a window.
        batch_size: B, the windows in a batch.
        position: how many training windows have been drawn, by all processes together.
        skipped: the position after a batch that is never given; 0 for none.
    """

    def __init__(
        self, data: Tensor | Sequence[int] | PreparedData, config: Config, *, rank: int = 0, world_size: int = 1
    ) -> None:
        """Split ids at `train_fraction`, contiguously, as the lecture does; prepared data are split already.

        Of `world_size` processes the one of that `rank` gets its share of each batch: together they get the batch
        that one alone would. Raises DataError if either split is too short for a single window and its targets.
        """
        self.train: Any  # Ids; who trains on a text of their own knows that it is a Tensor
        self.val: Any
        if isinstance(data, PreparedData):
            self.train, self.val = data.train, data.val
        else:
            ids = torch.as_tensor(data, dtype=torch.int64)
            boundary = math.floor(config.training.train_fraction * len(ids))
            self.train, self.val = ids[:boundary], ids[boundary:]
        self.block_size = config.model.block_size
        self.batch_size = config.training.batch_size
        self.seed = config.training.seed
        self.in_epochs = config.training.order == "epochs"
        self.rank, self.world_size = rank, world_size
        self.generator = torch.Generator().manual_seed(self.seed)
        self.val_generator = torch.Generator().manual_seed(self.seed)
        self.position = self.skipped = 0
        self._ahead = (0, np.empty(0, np.int64))  # a stretch of the shuffled order: where it begins, its starts
        for name, split in (("training", self.train), ("validation", self.val)):
            if len(split) < self.block_size + 1:
                fitting = find_largest_preset(min(len(self.train), len(self.val)) - 1)
                raise DataError(
                    f"the {name} split has {len(split):,} tokens and block_size {self.block_size:,} needs at least "
                    f"{self.block_size + 1:,}: use a longer text or a smaller block_size"
                    f"{f', such as that of the preset {fitting}' if fitting else ''}"
                )

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """A batch of windows of "train" or "val": contexts x and targets y, both (B, T).

        y is x shifted by one: y[b, t] is the token that follows x[b, : t + 1]. Windows are drawn at random, with
        replacement, from this dataset's own generator, so that the same seed gives the same batches whatever else is
        random; with `order="epochs"` those to train on lie side by side and are read in a shuffled order, each once
        before the next epoch, whose windows begin elsewhere.
        """
        ids, generator = {"train": (self.train, self.generator), "val": (self.val, self.val_generator)}[split]
        if split == "train" and self.in_epochs:
            starts = self._next_starts(self.batch_size)  # (B,)
        else:
            starts = torch.randint(len(ids) - self.block_size, (self.batch_size,), generator=generator)  # (B,)
        if split == "train":
            self.position += self.batch_size
            if self.position == self.skipped:
                return self.get_batch(split)
        if self.world_size > 1:
            starts = starts.tensor_split(self.world_size)[self.rank]
        return take_windows(ids, starts, self.block_size)

    def sample(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """At most `count` windows of a split, evenly spread, the same each time: x and y, both (N, T)."""
        return take_spaced_windows({"train": self.train, "val": self.val}[split], count, self.block_size)

    @property
    def tokens(self) -> int:
        """How many there are, in both splits."""
        return len(self.train) + len(self.val)

    @property
    def tokens_a_batch(self) -> float:
        """How many a batch has."""
        return self.batch_size * self.block_size

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from: the generator's state and the position."""
        return {"generator": self.generator.get_state(), "position": self.position}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on as if all batches up to then had been drawn."""
        self.generator.set_state(state["generator"])
        self.position = state["position"]

    def _next_starts(self, count: int) -> Tensor:
        """Where the next windows begin, in epochs."""
        first, starts = self._ahead
        if not first <= self.position <= self.position + count <= first + len(starts):
            first, starts = self.position, self._starts(self.position, max(count, AHEAD))
            self._ahead = (first, starts)
        return torch.from_numpy(starts[self.position - first :][:count])

    def _starts(self, position: int, count: int) -> np.ndarray:
        """Where the windows from that position on begin: side by side, from a place and in an order of the epoch's own.

        Were they the same each time, so would be what each token is predicted from, which is sooner learned by heart.
        """
        an_epoch = max(1, (len(self.train) - 1) // self.block_size - 1)  # whole windows, and room to move them
        room = len(self.train) - an_epoch * self.block_size  # places where the first may begin
        found: list[np.ndarray] = []
        while count > 0:
            epoch, place = divmod(position, an_epoch)
            places = np.arange(place, min(an_epoch, place + count))
            first = np.random.default_rng([self.seed, epoch]).integers(room)
            found.append(first + RandomPermutation(an_epoch, [self.seed, epoch])[places] * self.block_size)
            position += len(places)
            count -= len(places)
        return np.concatenate(found)


def take_windows(ids: Ids, starts: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """The windows of `ids` that begin at `starts` (B,): contexts and targets, both (B, T)."""
    if isinstance(ids, TokenFiles):
        rows = ids.rows(starts.tolist(), block_size + 1)  # (B, T + 1)
        x, y = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
        return torch.from_numpy(x), torch.from_numpy(y)
    positions = starts[:, None] + torch.arange(block_size)  # (B, 1) + (T,) -> (B, T)
    return ids[positions], ids[positions + 1]


def take_spaced_windows(ids: Ids, count: int, block_size: int) -> tuple[Tensor, Tensor]:
    """At most `count` windows spread evenly over `ids` from its start to its end: contexts and targets, (N, T)."""
    last = len(ids) - block_size - 1
    starts = torch.linspace(0, last, min(count, last + 1), dtype=torch.float64).round().long()
    return take_windows(ids, starts, block_size)

"""Token ids, split into training and validation, and batches of them: `get_batch(split)`.

The ids are in memory, or in files that are mapped into memory and may be larger than it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.config import Config, find_largest_preset
from minigpt.data.prepared_data import PreparedData, TokenFiles
from minigpt.data.shards import Split
from minigpt.data.shuffle import RandomPermutation
from minigpt.errors import DataError

Ids = Tensor | TokenFiles
_WINDOWS_AHEAD = 4096  # windows of a shuffled order that are computed at once


class Dataset:
    """The token ids of a text in two splits. `get_batch` returns batches of windows.

    Attributes:
        train: ids of the training split, (N,): an int64 tensor, or memory-mapped files.
        val: ids of the validation split, (M,), in the same form.
        block_size: T, the length of a window.
        batch_size: B, the windows in a batch, of all processes together.
        position: how many training windows have been drawn, by all processes together.
        skip_positions: `get_batch` skips the batches that end at these positions, because the loss diverged there.
        generator: draws the training windows. Its state is part of a checkpoint.
        val_generator: draws the validation windows, so that looking at them does not change the training.
    """

    def __init__(
        self,
        data: Tensor | Sequence[int] | np.ndarray | PreparedData,
        config: Config,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Split the data.

        Args:
            data: the ids of a text, (N,), of which the first `train_fraction` is the training split, as in the lecture;
                or prepared data, which are already split.
            config: the run's configuration.
            rank: the number of this process.
            world_size: the number of processes. Each returns its share of a batch; together the shares are the batch
                that one process alone would return.

        Raises:
            DataError: a split is too short for one window and its targets.
        """
        self.train: Any  # Ids; a caller that passes a text may rely on a Tensor
        self.val: Any
        if isinstance(data, PreparedData):
            self.train, self.val = data.train, data.val
        else:
            ids = torch.as_tensor(data, dtype=torch.int64)
            boundary = find_boundary(len(ids), config)
            self.train, self.val = ids[:boundary], ids[boundary:]
        self.block_size = config.model.block_size
        self.batch_size = config.training.batch_size
        self.seed = config.training.seed
        self.in_epochs = config.training.order == "epochs"
        self.rank, self.world_size = rank, world_size
        self.generator = torch.Generator().manual_seed(self.seed)
        self.val_generator = torch.Generator().manual_seed(self.seed)
        self.position, self.skip_positions = 0, list[int]()
        self._ahead = (0, np.empty(0, np.int64))  # a position in the shuffled order, and the starts from there on
        for name, split in (("training", self.train), ("validation", self.val)):
            if len(split) < self.block_size + 1:
                fitting = find_largest_preset(min(len(self.train), len(self.val)) - 1)
                raise DataError(
                    f"the {name} split has {len(split):,} tokens and block_size {self.block_size:,} needs at least "
                    f"{self.block_size + 1:,}: use a longer text or a smaller block_size"
                    f"{f', such as that of the preset {fitting}' if fitting else ''}"
                )

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return a batch of windows.

        With `order="random"` windows are drawn at random, with replacement. With `order="epochs"` the training split is
        cut into adjacent windows, and each comes once in an epoch, in shuffled order. Every epoch cuts it at other
        places. The same seed gives the same batches; other users of random numbers do not change them.

        Args:
            split: "train" or "val".

        Returns:
            Contexts x and targets y, both (B, T), int64; of several processes each gets its share of the B windows.
            y is x shifted by one: y[b, t] is the token that follows x[b, : t + 1].
        """
        ids, generator = {"train": (self.train, self.generator), "val": (self.val, self.val_generator)}[split]
        if split == "train" and self.in_epochs:
            starts = self._take_starts(self.batch_size)  # (B,)
        else:
            starts = torch.randint(len(ids) - self.block_size, (self.batch_size,), generator=generator)  # (B,)
        if split == "train":
            self.position += self.batch_size
            if self.position in self.skip_positions:
                return self.get_batch(split)
        if self.world_size > 1:
            starts = starts.tensor_split(self.world_size)[self.rank]
        return take_windows(ids, starts, self.block_size)

    def count_targets(self, y: Tensor) -> int:
        """Return the number of targets in y whose mean is the loss of its batch: all of them."""
        return y.numel()

    def get_evaluation_batch(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """Return at most `count` evenly spaced windows of a split, always the same: x and y, both (N, T)."""
        return take_spaced_windows({"train": self.train, "val": self.val}[split], count, self.block_size)

    @property
    def num_tokens(self) -> int:
        """The number of tokens in both splits."""
        return len(self.train) + len(self.val)

    @property
    def tokens_per_batch(self) -> float:
        """The number of tokens in a batch."""
        return self.batch_size * self.block_size

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs: the state of the training generator, and the position."""
        return {"generator": self.generator.get_state(), "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the training batch that came after `state_dict` was called."""
        self.generator.set_state(state["generator"])
        self.position = state["position"]

    def _take_starts(self, count: int) -> Tensor:
        """Return where the next windows begin, for `order="epochs"`: (count,)."""
        first, starts = self._ahead
        if not first <= self.position <= self.position + count <= first + len(starts):
            first, starts = self.position, self._compute_starts(self.position, max(count, _WINDOWS_AHEAD))
            self._ahead = (first, starts)
        return torch.from_numpy(starts[self.position - first :][:count])

    def _compute_starts(self, position: int, count: int) -> np.ndarray:
        """Return where the windows from `position` on begin: (count,).

        An epoch's windows lie side by side. Its first window begins at a random place: with the same windows in every
        epoch the model would see each token after the same context again, and memorize it sooner.
        """
        windows_per_epoch = max(1, (len(self.train) - 1) // self.block_size - 1)
        places_for_first = len(self.train) - windows_per_epoch * self.block_size
        found: list[np.ndarray] = []
        while count > 0:
            epoch, place = divmod(position, windows_per_epoch)
            places = np.arange(place, min(windows_per_epoch, place + count))
            first = np.random.default_rng([self.seed, epoch]).integers(places_for_first)
            shuffled = RandomPermutation(windows_per_epoch, [self.seed, epoch])[places]
            found.append(first + shuffled * self.block_size)
            position += len(places)
            count -= len(places)
        return np.concatenate(found)


def find_boundary(tokens: int, config: Config) -> int:
    """Return how many of a text's tokens are its training split; the validation split follows them."""
    return math.floor(config.training.train_fraction * tokens)


def take_windows(ids: Ids, starts: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Return the windows that begin at given places.

    Args:
        ids: token ids, (N,).
        starts: where the windows begin, (B,), int64.
        block_size: T, the length of a window.

    Returns:
        Contexts and targets, both (B, T), int64.
    """
    if isinstance(ids, TokenFiles):
        rows = ids.read_rows(starts.tolist(), block_size + 1)  # (B, T + 1)
        x, y = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
        return torch.from_numpy(x), torch.from_numpy(y)
    windows = ids.unfold(0, block_size + 1, 1)[starts]  # (B, T + 1)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def take_spaced_windows(ids: Ids, count: int, block_size: int) -> tuple[Tensor, Tensor]:
    """Return at most `count` windows, evenly spaced from the start of `ids` to its end: x and y, both (N, T)."""
    last = len(ids) - block_size - 1
    starts = torch.linspace(0, last, min(count, last + 1), dtype=torch.float64).round().long()
    return take_windows(ids, starts, block_size)

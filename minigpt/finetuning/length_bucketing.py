"""Batches of examples of similar length, so that a batch has little padding."""

from collections.abc import Iterator, Sequence

import torch

BATCHES_PER_BUCKET = 16  # the examples of this many batches are sorted by length together


class LengthBucketSampler(Iterator[list[int]]):
    """An endless iterator over batches of indices; each example comes once an epoch.

    Args:
        lengths: tokens of each example.
        batch_size: examples in a batch; the last batch of a bucket can be smaller.
        generator: for the shuffling.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self.lengths, self.batch_size, self.generator = lengths, batch_size, generator
        self.queue: list[list[int]] = []
        self.epoch_generator = generator.get_state()

    def __next__(self) -> list[int]:
        if not self.queue:
            self.queue = self._draw_epoch()
        return self.queue.pop()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the generator's state before this epoch, and how many batches are left of it."""
        return {"epoch_generator": self.epoch_generator, "batches_left": torch.tensor([len(self.queue)])}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from that state. Afterwards the caller must restore the generator's own state."""
        self.generator.set_state(state["epoch_generator"])
        self.queue = self._draw_epoch()[: int(state["batches_left"])]

    def _draw_epoch(self) -> list[list[int]]:
        """Shuffle the examples, sort each bucket by length, cut the buckets into batches, and shuffle these."""
        self.epoch_generator = self.generator.get_state()
        order = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        bucket_size = self.batch_size * BATCHES_PER_BUCKET
        batches = []
        for start in range(0, len(order), bucket_size):
            bucket = sorted(order[start : start + bucket_size], key=lambda i: self.lengths[i])
            batches += [bucket[i : i + self.batch_size] for i in range(0, len(bucket), self.batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=self.generator).tolist()]

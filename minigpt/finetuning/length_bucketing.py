"""Batches of examples of like length, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence

import torch

BATCHES_AHEAD = 16  # whose examples are sorted by length together


class LikeLengths(Iterator[list[int]]):
    """Endless batches of numbers of examples; each comes once an epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self.lengths, self.batch_size, self.generator = lengths, batch_size, generator
        self.queue: list[list[int]] = []
        self.epoch_generator = generator.get_state()

    def state(self) -> dict[str, torch.Tensor]:
        """Return what `restore` needs: the generator's state before this epoch, and how many batches are left of it."""
        return {"epoch_generator": self.epoch_generator, "batches_left": torch.tensor([len(self.queue)])}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from that state. The generator's own state is to be restored afterwards."""
        self.generator.set_state(state["epoch_generator"])
        self.queue = self._epoch()[: int(state["batches_left"])]

    def __next__(self) -> list[int]:
        if not self.queue:
            self.queue = self._epoch()
        return self.queue.pop()

    def _epoch(self) -> list[list[int]]:
        """All of them once, in batches: in random order, sorted by length within some batches' worth."""
        self.epoch_generator = self.generator.get_state()
        order = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        stretch = self.batch_size * BATCHES_AHEAD
        batches = []
        for start in range(0, len(order), stretch):
            near = sorted(order[start : start + stretch], key=lambda i: self.lengths[i])
            batches += [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=self.generator).tolist()]

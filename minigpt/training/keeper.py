"""What a training is at one moment, taken down while it waits, to be written while it goes on; and put back again."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from minigpt.errors import RunError
from minigpt.folder import Metrics, Snapshot, read_weights
from minigpt.run import Run
from minigpt.text.dataset import Dataset
from minigpt.training.optimizer import Optimizer
from minigpt.training.saves import Moment, Save, Saves

BATCHES, CPU, CUDA = "generator.batches", "generator.cpu", "generator.cuda"


class Keeper:
    """Takes down and puts back the optimizer's averages and every random generator; the weights are the model's."""

    def __init__(self, run: Run, dataset: Dataset) -> None:
        self.saves, self.dataset = Saves(run.path), dataset
        self.device = next(iter(run.model.parameters())).device
        self.optimizer: Optimizer | None = None

    def begin(self, optimizer: Optimizer, save: Save | None) -> None:
        """Keep that optimizer from now on; make all as it was at the save, if there is one. Raises as `restore`."""
        self.optimizer = optimizer
        if save is not None:
            self.restore(save)

    def restore(self, save: Save) -> None:
        """Make all but the weights as it was at the save. Raises RunError for one that is not of such a training."""
        assert self.optimizer is not None
        tensors = read_weights(save.training, self.tensors())
        self.optimizer.restore(tensors)
        try:
            self.dataset.restore({"generator": tensors[BATCHES], "position": save.moment.position})
            self.dataset.skipped = save.moment.skipped
            torch.set_rng_state(tensors[CPU])
            if self.device.type == "cuda" and tensors[CUDA].any():
                torch.cuda.set_rng_state(tensors[CUDA], self.device)
        except RuntimeError as error:
            raise RunError(f"{str(save.training)!r} is damaged: {error}") from None

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all of it, by name."""
        assert self.optimizer is not None
        found = self.optimizer.state()
        found |= {BATCHES: self.dataset.generator.get_state(), CPU: torch.get_rng_state()}
        on_gpu = self.device.type == "cuda"  # and if not, zeros, so that the device may change
        found[CUDA] = torch.cuda.get_rng_state(self.device) if on_gpu else torch.zeros(16, dtype=torch.uint8)
        return found

    def saving(
        self,
        moment: Moment,
        weights: Mapping[str, Tensor],
        metrics: Sequence[Metrics],
        snapshots: Sequence[Snapshot],
    ) -> Callable[[], None]:
        """What to call, on any thread and at any time, to write a save of this moment."""
        tensors, metrics, snapshots = self.tensors(), [*metrics], [*snapshots]
        return lambda: self.saves.write(moment, weights, tensors, metrics, snapshots)

"""What a training is at one moment, taken down while it waits, to be written while it goes on; and put back again."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from minigpt.data.dataset import Dataset
from minigpt.distributed.processes import ALONE, Processes, in_parts, part
from minigpt.distributed.sharded_checkpoint import fill, write_parts
from minigpt.errors import RunError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import Metrics, Snapshot
from minigpt.training.checkpoint import PARTS, Moment, Save, Saves
from minigpt.training.loop import Usual
from minigpt.training.optimizer import Optimizer

USUAL, BATCHES, CPU, CUDA = "usual", "generator.batches", "generator.cpu", "generator.cuda"


class Keeper:
    """Takes down and puts back the weights, the optimizer's averages and every random generator."""

    def __init__(self, run: Run, dataset: Dataset, model: nn.Module, processes: Processes = ALONE) -> None:
        """For the training of that model, perhaps one part of it in each of several processes."""
        self.saves, self.dataset, self.model, self.processes = Saves(run.path), dataset, model, processes
        self.device = next(iter(model.parameters())).device
        self.optimizer: Optimizer | None = None
        of_rank = "" if processes.first else f".{processes.rank}"  # dropout differs from process to process
        self.cpu, self.cuda = CPU + of_rank, CUDA + of_rank

    def begin(self, optimizer: Optimizer, usual: Usual, save: Save | None) -> None:
        """Keep these from now on; make all but the weights as it was at the save, if there is one.

        Raises as `restore`.
        """
        self.optimizer, self.usual = optimizer, usual
        if save is not None:
            self.restore(save)

    def restore(self, save: Save) -> None:
        """Make all but the weights as it was at the save. Raises RunError for one that is not of such a training."""
        assert self.optimizer is not None
        tensors = self.tensors()
        fill(tensors, save.training, may_lack=() if self.processes.first else (self.cpu, self.cuda))
        self.optimizer.restore(tensors)
        self.usual.restore(tensors[USUAL])
        try:
            self.dataset.restore({"generator": tensors[BATCHES], "position": save.moment.position})
            self.dataset.skipped = save.moment.skipped
            torch.set_rng_state(tensors[self.cpu])
            if self.device.type == "cuda" and tensors[self.cuda].any():
                torch.cuda.set_rng_state(tensors[self.cuda], self.device)
        except RuntimeError as error:
            raise RunError(f"{str(save.training)!r} is damaged: {error}") from None

    def restore_weights(self, save: Save) -> None:
        """Make the weights as they were at the save. Raises RunError."""
        fill(self.model.state_dict(), save.model)

    def spoiled(self) -> bool:
        """Whether some weight is no number any more, as after an infinite gradient; the next batch's loss will say so.

        Of many processes each looks at its own part.
        """
        return not all(bool(part(weight).isfinite().all()) for weight in self.model.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """All but the weights, by name: the averages themselves, the rest as it is now."""
        assert self.optimizer is not None
        in_parts(self.model)
        found = self.optimizer.state(self.model)
        found |= {
            USUAL: self.usual.state(),
            BATCHES: self.dataset.generator.get_state(),
            self.cpu: torch.get_rng_state(),
        }
        on_gpu = self.device.type == "cuda"  # and if not, zeros, so that the device may change
        found[self.cuda] = torch.cuda.get_rng_state(self.device) if on_gpu else torch.zeros(16, dtype=torch.uint8)
        return found

    def saving(
        self,
        moment: Moment,
        weights: Mapping[str, Tensor],
        metrics: Sequence[Metrics],
        snapshots: Sequence[Snapshot],
    ) -> Callable[[], None]:
        """What to call, on any thread and at any time, to write a save of this moment; many write theirs together."""
        tensors, metrics, snapshots = self.tensors(), [*metrics], [*snapshots]
        if self.processes.size == 1:
            copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            return lambda: self.saves.write(moment, weights, copies, metrics, snapshots)
        if self.processes.first:
            self.saves.begin(moment.step)
        self.processes.wait()
        parts = self.saves.place(moment.step) / PARTS
        written = write_parts(parts, {**self.model.state_dict(), **tensors}, self.processes)

        def finish() -> None:
            written()
            if self.processes.first:
                self.saves.finish(moment, metrics, snapshots)

        return finish

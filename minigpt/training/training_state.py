"""Everything that changes while a model trains: a checkpoint saves it, and resume restores it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from minigpt.config import TrainingConfig
from minigpt.distributed.parallelism import get_local_shard, reshard
from minigpt.distributed.process_group import SINGLE, Processes
from minigpt.distributed.sharded_checkpoint import load_into
from minigpt.errors import RunError
from minigpt.model.language_model import get_device
from minigpt.runs.run_info import Metrics, Snapshot, find_best
from minigpt.training.checkpoint_format import Checkpoint
from minigpt.training.evaluation_schedule import should_evaluate
from minigpt.training.loss_spikes import LossSpikeDetector
from minigpt.training.optimizer import Optimizer
from minigpt.training.stopwatch import Stopwatch
from minigpt.training.training_data import TrainingData

SPIKES, DATA, CPU, CUDA = "loss_spikes", "data.", "generator.cpu", "generator.cuda"  # names in a checkpoint
StopReason = Literal["interrupted", "patience"]


@dataclass
class TrainingState:
    """The state of a training run. The loop changes it, and callbacks read it.

    Attributes:
        model: the model that trains; FSDP gives each process a shard of it.
        data: where the batches come from.
        optimizer: AdamW, and Muon if the config asks for it.
        config: the settings of the training.
        processes: the processes that train the model together.
        step: number of steps done.
        is_evaluated: True once this step's evaluation is done.
        stop_reason: why a callback wants the training to end here; None to go on.
        metrics: the evaluations so far.
        snapshots: the texts that the model wrote so far.
        saved_step: the step of the weights in the run's model.safetensors.
        kernels: names of the kernels that the model trains with.
        clock: time spent on training and on evaluation.
        spike_detector: sees each batch's loss.
    """

    model: nn.Module
    data: TrainingData
    optimizer: Optimizer
    config: TrainingConfig
    processes: Processes = SINGLE
    step: int = 0
    is_evaluated: bool = False
    stop_reason: StopReason | None = None
    metrics: list[Metrics] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    saved_step: int = 0
    kernels: list[str] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)
    spike_detector: LossSpikeDetector = field(default_factory=LossSpikeDetector)

    @property
    def is_last(self) -> bool:
        """True if no step follows."""
        return self.step == self.config.max_iters or self.stop_reason is not None

    @property
    def is_finished(self) -> bool:
        """True if the training is complete, not interrupted."""
        return self.step == self.config.max_iters or self.stop_reason == "patience"

    @property
    def is_evaluation_due(self) -> bool:
        """True if an evaluation is due at this step and not done yet."""
        return not self.is_evaluated and (self.is_last or should_evaluate(self.step, self.config))

    @property
    def best(self) -> Metrics | None:
        """The evaluation with the lowest validation loss, the first of equals; None before the first."""
        return find_best(self.metrics)

    def has_finite_weights(self) -> bool:
        """Return True if all weights of this process are finite numbers; after an infinite gradient they are not."""
        return all(bool(get_local_shard(weight).isfinite().all()) for weight in self.model.parameters())

    def weights(self) -> Mapping[str, Tensor]:
        """Return the model's weights by name; of a model with frozen parameters only those that train."""
        return get_trained_weights(self.model)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything but the weights by name: the optimizer's own tensors, and copies of the rest."""
        reshard(self.model)
        found = self.optimizer.state_dict(self.model)
        found |= {f"{DATA}{name}": tensor for name, tensor in self.data.state_dict().items() if name != "position"}
        found |= {SPIKES: self.spike_detector.state_dict(), self._name_for_rank(CPU): torch.get_rng_state()}
        device = self._device
        found[self._name_for_rank(CUDA)] = (  # on a CPU zeros, so that a run can resume on another device
            torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.zeros(16, dtype=torch.uint8)
        )
        return found

    def restore(self, checkpoint: Checkpoint) -> None:
        """Make everything but the weights what it was at the checkpoint.

        Raises:
            RunError: the checkpoint does not fit this training.
        """
        metadata = checkpoint.metadata
        tensors = self.tensors()
        cpu, cuda = self._name_for_rank(CPU), self._name_for_rank(CUDA)
        load_into(tensors, checkpoint.training, optional=() if self.processes.is_first else (cpu, cuda))
        self.optimizer.load_state_dict(tensors)
        self.optimizer.zero_grad()  # after a divergence there are gradients of the bad batch
        self.spike_detector.load_state_dict(tensors[SPIKES])
        try:
            saved = {name: tensors[f"{DATA}{name}"] for name in self.data.state_dict() if name != "position"}
            self.data.load_state_dict({**saved, "position": metadata.position})
            self.data.skip_positions = metadata.get_skip_positions()
            torch.set_rng_state(tensors[cpu])
            if self._device.type == "cuda" and tensors[cuda].any():
                torch.cuda.set_rng_state(tensors[cuda], self._device)
        except RuntimeError as error:
            raise RunError(f"{str(checkpoint.training)!r} is damaged: {error}") from None
        self.step = metadata.step
        self.is_evaluated = metadata.is_evaluated
        self.metrics[:], self.snapshots[:] = checkpoint.metrics, checkpoint.snapshots

    def resume(self, checkpoint: Checkpoint) -> None:
        """Restore the state in a new process, clock included. Raise RunError as `restore` does."""
        self.restore(checkpoint)
        self.clock.start(checkpoint.metadata.training_seconds, checkpoint.metadata.evaluation_seconds)

    def restore_weights(self, checkpoint: Checkpoint) -> None:
        """Make the weights what they were at the checkpoint. Raise RunError as `restore` does."""
        load_into(self.weights(), checkpoint.model)

    @property
    def _device(self) -> torch.device:
        return get_device(self.model)

    def _name_for_rank(self, name: str) -> str:
        """The name of a tensor that differs from process to process, such as the generator of dropout."""
        return name if self.processes.is_first else f"{name}.{self.processes.rank}"


def get_trained_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Return a model's weights by name; of a model with frozen parameters only those that train."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    weights = model.state_dict()
    if len(trained) == sum(1 for _ in model.parameters()):
        return weights
    return {name: tensor for name, tensor in weights.items() if name in trained}

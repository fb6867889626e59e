"""DDP and FSDP, applied to a model from outside.

DDP (distributed data parallel, Li et al. 2020) copies the model to every process. Each process reads its share of the
batch, and DDP averages the gradients while backward still computes them. FSDP (fully sharded data parallel, Zhao et al.
2023; ZeRO, Rajbhandari et al. 2020) splits every parameter, its gradient and its optimizer state between the
processes, and puts a block together only while it is needed.
"""

import inspect
import warnings
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minigpt.config import Config
from minigpt.distributed.process_group import Processes
from minigpt.errors import ConfigError
from minigpt.model.language_model import get_device
from minigpt.system.advice import format_setting
from minigpt.system.device import pick_device


def require_parallel_config(config: Config, processes: Processes) -> None:
    """Raise ConfigError for settings that several processes cannot have."""
    training = config.training
    if processes.size == 1:
        return
    if training.batch_size < processes.size:
        raise ConfigError(
            f"{processes.size} processes cannot share a batch_size of {training.batch_size}: "
            f"choose at least {processes.size}"
        )
    if training.max_minutes is not None:
        raise ConfigError("max_minutes is measured on one process: set max_iters for several")
    if pick_device(training.device).type == "mps":
        raise ConfigError(
            f"several processes cannot share this machine's GPU: choose {format_setting('device', 'cpu')}"
        )
    if training.parallel == "fsdp" and training.optimizer == "muon":
        raise ConfigError(
            f"muon needs whole matrices, but fsdp splits them: "
            f"choose {format_setting('parallel', 'ddp')}, or {format_setting('optimizer', 'adamw')}"
        )
    if training.parallel == "fsdp" and training.precision == "fp16":
        raise ConfigError(
            f"fsdp does not support fp16 with its loss scaling: choose {format_setting('precision', 'bf16', 'fp32')}"
        )


def is_sharded(config: Config, processes: Processes) -> bool:
    """Return True if each process holds only a shard of every parameter."""
    return processes.size > 1 and config.training.parallel == "fsdp"


def parallelize(model: nn.Module, config: Config, processes: Processes) -> nn.Module:
    """Return the module to call in each process, so that its gradients are those of the whole batch.

    Args:
        model: the model of this process. FSDP changes it in place.
        config: `parallel` says which of the two.
        processes: with one process the model is returned as it is.
    """
    if processes.size == 1:
        return model
    if not is_sharded(config, processes):
        known = inspect.signature(DistributedDataParallel).parameters  # newer versions of PyTorch have another name
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False}  # the buffers are masks, the same everywhere
        return DistributedDataParallel(model, **options)
    from torch.distributed.device_mesh import init_device_mesh  # takes a second to import
    from torch.distributed.fsdp import fully_shard

    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # about in-place changes to views: we make none
    mesh = init_device_mesh(get_device(model).type, (processes.size,))
    for block in getattr(model, "blocks", []):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def set_gradient_sync(model: nn.Module, enabled: bool) -> None:
    """Say whether the next backward averages the gradients of all processes: with DDP once a step is enough.

    FSDP averages after each batch, because no process holds a whole gradient.
    """
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = enabled


def reshard(model: Any) -> None:
    """Split the parameters of a sharded model again, which an evaluation has put together."""
    if hasattr(model, "reshard"):
        model.reshard()


def gather_full_tensor(tensor: Any) -> Tensor:
    """Return the whole of a tensor that may be sharded. All processes call it together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def get_local_shard(tensor: Any) -> Tensor:
    """Return the shard of a tensor that this process holds; an unsharded tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor

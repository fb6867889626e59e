"""Wrap a model for training: kernels, recomputed activations, flat parameters, DDP or FSDP, and torch.compile.

The model's code does not change. After the training, the recomputation and the gradients are removed. Kernels, flat
parameters and FSDP's shards stay.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from minigpt.acceleration import accelerate, enter_loop_step
from minigpt.config import Config
from minigpt.distributed.parallelism import is_sharded, parallelize
from minigpt.distributed.process_group import SINGLE, Processes
from minigpt.errors import DeviceError
from minigpt.model.language_model import get_device
from minigpt.system.advice import format_setting
from minigpt.system.device import keep_freed_memory
from minigpt.training.flat_parameters import flatten_parameters
from minigpt.training.precision import allow_tf32, require_precision


@dataclass(frozen=True)
class WrappedModel:
    """A model that is ready to train.

    Attributes:
        module: the model, or DDP's or FSDP's wrapper around it.
        forward: returns the logits and the mean loss of a batch; the module, compiled if the config says so.
        parameters: what the optimizer updates: the flat parameters of `flatten_parameters`, or FSDP's shards.
        device: where the model is.
        kernels: names of the kernels that the model uses.
    """

    module: nn.Module
    forward: Callable
    parameters: list[nn.Parameter]
    device: torch.device
    kernels: list[str]

    def enter_step(self) -> AbstractContextManager[None]:
        """Return a context for a training step. A model that trains in compiled loops gives them PyTorch's threads."""
        if "training_loops" not in self.kernels:
            return nullcontext()
        return enter_loop_step(adds_gradients=not isinstance(self.module, DistributedDataParallel))


@contextmanager
def wrap_model(model: nn.Module, config: Config, processes: Processes = SINGLE) -> Iterator[WrappedModel]:
    """Prepare a model for training during the block.

    Args:
        model: the model, on its device. Its parameters become views of a few long ones.
        config: says which precision, kernels, recomputation, parallelism and compilation to use.
        processes: the processes that train the model together.

    Raises:
        DeviceError: the device cannot compute in the configured precision.
    """
    training, device = config.training, get_device(model)
    require_precision(training.precision, device)
    keep_freed_memory()
    kernels = accelerate(model, config)
    if training.checkpoint_activations:
        _recompute_blocks(model)
    # flat parameters come first: DDP and the optimizer must see the new storage
    flat = None if is_sharded(config, processes) else flatten_parameters(model, stack=training.optimizer == "muon")
    module = parallelize(model, config, processes)
    parameters = flat or [*model.parameters()]
    forward = _compile(module) if training.compile else module
    try:
        with allow_tf32(device):
            yield WrappedModel(module, forward, parameters, device, kernels)
    finally:
        for part in model.modules():
            vars(part).pop("forward", None)
        for parameter in [*model.parameters(), *parameters]:
            parameter.grad = None


def _compile(module: nn.Module) -> Callable:
    """Return the compiled module. It raises DeviceError if the compiler fails, for example because there is none."""
    compiled = torch.compile(module)

    def forward(*inputs: Tensor) -> Any:
        try:
            return compiled(*inputs)
        except Exception as error:
            if not any(cls.__name__ == "TorchDynamoException" for cls in type(error).__mro__):
                raise
            reason = str(error).strip().split("\n")[0]
            raise DeviceError(
                f"torch.compile does not work here ({reason}): leave out {format_setting('compile')}"
            ) from None

    return forward


def _recompute_blocks(model: nn.Module) -> None:
    """Let each block drop its activations, and compute them again in backward with the same dropout."""
    for block in model.get_submodule("blocks").children():
        block.forward = functools.partial(_recompute, block.forward)


def _recompute(forward: Callable, *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)

"""A model's loss and gradients, with everything that is applied to the model from outside.

Precision, compilation and the recomputing of activations are here; the model's own forward knows nothing of them.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minigpt.acceleration import accelerate
from minigpt.config import Config
from minigpt.distributed.processes import ALONE, Processes, shards, spread, synchronize
from minigpt.errors import DeviceError
from minigpt.system.device import has_fast_bf16, keep_freed_memory, pick_device
from minigpt.training.optimizer import flatten

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Gradients:
    """Adds the gradients of a batch's mean loss to those of a model, until its `with` block ends.

    Attributes:
        parameters: the model's, made long by `flatten` unless each process has parts of them, with the gradients.
        scaler: keeps the gradients of half precision from vanishing; does nothing in other precisions.
    """

    def __init__(self, model: nn.Module, config: Config, processes: Processes = ALONE) -> None:
        """For a model where it is. Raises DeviceError for a precision that its device doesn't have."""
        training, device = config.training, next(model.parameters()).device
        require_precision(training.precision, device)
        keep_freed_memory()
        accelerate(model, config)
        if training.checkpoint_activations:
            recompute_blocks(model)
        self.model, self.processes = model, processes
        # before anything holds on to the model's own parameters
        long = None if shards(config, processes) else flatten(model, stack=config.training.optimizer == "muon")
        self.spread = spread(model, config, processes)
        self.parameters = long or [*model.parameters()]
        self.device = device
        self.dtype = DTYPES.get(training.precision)
        self.share = 1 / training.gradient_accumulation
        self.batch_size = training.batch_size
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "fp16")
        self.forward: Callable = torch.compile(self.spread) if training.compile else self.spread

    def add(self, x: Tensor, y: Tensor, last: bool = True) -> float:
        """The mean loss of predicting y from x, both (B, T), whose gradients are added to the parameters'.

        Each is a gradient_accumulation-th of it, so that they come to the mean over all batches of a step; with the
        last of these those of all processes are brought together. Where x and y are one process's share of a batch, it
        counts by its size, and the loss is that of the whole batch.
        """
        synchronize(self.spread, last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None), compiler_explained():
            _, loss = self.forward(*self._moved(x, y))  # the mean cross-entropy of B * T predictions
        here = len(x) / self.batch_size if self.processes.size > 1 else 1  # of the batch, this process's part
        share = self.share * here * self.processes.size  # PyTorch takes the mean of the processes' gradients
        self.scaler.scale(loss * share if share != 1 else loss).backward()
        return self.processes.sum(loss.item() * here)

    def __enter__(self) -> Self:
        """On a GPU, let matrix products of 32 bits round their factors to TF32, which is many times as fast."""
        self.products = torch.get_float32_matmul_precision()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the model as any other: nothing is applied to it any more, and its gradients are gone."""
        torch.set_float32_matmul_precision(self.products)
        for part in self.model.modules():
            vars(part).pop("forward", None)
        for parameter in [*self.model.parameters(), *self.parameters]:
            parameter.grad = None

    def _moved(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.device.type != "cuda":
            return x.to(self.device), y.to(self.device)
        x, y = x.pin_memory(), y.pin_memory()
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


@contextmanager
def compiler_explained() -> Iterator[None]:
    """Turn torch.compile's failures, such as that of a missing C++ compiler, into a DeviceError with a way out."""
    try:
        yield
    except Exception as error:
        if not any(cls.__name__ == "TorchDynamoException" for cls in type(error).__mro__):
            raise
        reason = str(error).strip().split("\n")[0]
        raise DeviceError(f"torch.compile does not work here ({reason}): leave out --compile") from None


def with_precision(config: Config) -> Config:
    """The same, with a precision by name where it is "auto": what the device multiplies fastest."""
    training = config.training
    if training.precision != "auto":
        return config
    return config.override(precision="bf16" if has_fast_bf16(pick_device(training.device)) else "fp32")


def require_precision(precision: str, device: torch.device) -> None:
    """Raise DeviceError if that device cannot compute in that precision."""
    if precision == "fp16" and device.type != "cuda":
        raise DeviceError(f"fp16 needs a CUDA GPU, and the device is '{device}': choose --precision bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not has_fast_bf16(device):
        raise DeviceError("this GPU cannot compute in bf16: choose --precision fp16 or fp32")
    if precision == "bf16" and device.type == "mps":
        raise DeviceError("bf16 needs a CPU or a CUDA GPU, and the device is 'mps': choose --precision fp32")


def recompute_blocks(model: nn.Module) -> None:
    """Let each block forget its activations and compute them again in backward, with the same dropout."""
    blocks = model.get_submodule("blocks")
    for part in blocks.children():
        part.forward = functools.partial(recomputed, part.forward)


def recomputed(forward: Callable, *inputs: Any) -> Any:
    """What `forward` gives; where gradients will be asked for, its activations are not kept."""
    return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)

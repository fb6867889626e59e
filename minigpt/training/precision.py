"""The precision of matrix products: fp32, bf16 or fp16."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from minigpt.config import Config
from minigpt.errors import DeviceError
from minigpt.system.advice import format_setting
from minigpt.system.device import has_fast_bf16, pick_device

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(config: Config) -> Config:
    """Return the config with "auto" replaced by the precision that the device multiplies fastest."""
    training = config.training
    if training.precision != "auto":
        return config
    return config.override(precision="bf16" if has_fast_bf16(pick_device(training.device)) else "fp32")


def require_precision(precision: str, device: torch.device) -> None:
    """Raise DeviceError if the device cannot compute in that precision."""
    if precision == "fp16" and device.type != "cuda":
        raise DeviceError(
            f"fp16 needs a CUDA GPU, and the device is '{device}': choose {format_setting('precision', 'bf16', 'fp32')}"
        )
    if precision == "bf16" and device.type == "cuda" and not has_fast_bf16(device):
        raise DeviceError(f"this GPU cannot compute in bf16: choose {format_setting('precision', 'fp16', 'fp32')}")
    if precision == "bf16" and device.type == "mps":
        raise DeviceError(
            f"bf16 needs a CPU or a CUDA GPU, and the device is 'mps': choose {format_setting('precision', 'fp32')}"
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which matrix products compute in that precision; in fp32 it changes nothing."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@contextmanager
def allow_tf32(device: torch.device) -> Iterator[None]:
    """Let a GPU round the factors of float32 products to TF32 during the block: it is several times as fast."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

"""Tensors from a file that may be a stranger's."""

from pathlib import Path

import torch
from torch import Tensor

from minigpt.errors import ExchangeError
from minigpt.system.files import explain_os_errors
from minigpt.system.safetensors_files import open_safetensors

LARGEST = 2**31  # bytes
READABLE = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata.

    Raises ExchangeError for what is none, is too large, holds none, or a number that isn't finite; FileError.
    """
    if not path.is_file():
        raise ExchangeError(f"{str(path)!r} is not a file of tensors: name an adapter's folder")
    with explain_os_errors("read", path):
        if path.stat().st_size > LARGEST:
            raise ExchangeError(f"{str(path)!r} is larger than {LARGEST:,} bytes: that is no adapter")
    with open_safetensors(path, ExchangeError) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    for name, tensor in tensors.items():
        if tensor.dtype not in READABLE:
            raise ExchangeError(f"{str(path)!r} cannot be read: the numbers of {name} are of type {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ExchangeError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")
    if not tensors:
        raise ExchangeError(f"{str(path)!r} is empty: it has no tensors")
    return tensors, metadata

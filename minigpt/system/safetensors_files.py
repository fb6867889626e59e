"""safetensors files, which may be untrusted: sizes are checked before anything is read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import safetensors

from minigpt.errors import ExchangeError, InputError, RunError
from minigpt.system.files import explain_os_errors

if TYPE_CHECKING:
    from torch import Tensor

_HEADER_SIZE_BYTES = 8
_MAX_HEADER_BYTES = 2**22  # bytes, enough for tens of thousands of tensors; each takes time, even an empty one
_MAX_DIMENSIONS, _MAX_SIZE = 8, 2**48  # of a tensor, and of one of its dimensions; more is damage
_MAX_ADAPTER_BYTES = 2**31  # bytes
_READABLE_DTYPES = ("torch.float32", "torch.float64", "torch.float16", "torch.bfloat16", "torch.int64")


@contextmanager
def open_safetensors(path: Path, error: type[InputError]) -> Iterator[Any]:
    """Open a safetensors file within the block.

    Args:
        path: the file.
        error: the exception to raise if the file is unreadable, or has more tensors than any model here.

    Yields:
        The library's handle, whose tensors are PyTorch's.
    """
    try:
        with path.open("rb") as file:
            _read_header_size(file, path, error)
        with safetensors.safe_open(path, framework="pt") as tensors:
            yield tensors
    except (safetensors.SafetensorError, OSError) as found:
        raise error(f"{str(path)!r} cannot be read as safetensors: {found}") from None


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor in a run's safetensors file, from its header alone and without PyTorch.

    Raises:
        RunError: the file is missing, or its header is damaged.
    """
    if not path.is_file():
        raise RunError(f"{str(path)!r} is missing: the run has no weights, or none yet")
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(_read_header_size(file, path, RunError)))
            shapes = {name: _parse_shape(tensor) for name, tensor in header.items() if name != "__metadata__"}
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            if file.tell() + max(ends, default=0) != path.stat().st_size:
                raise ValueError("its size is not the one in its header")
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as found:
        raise RunError(f"{str(path)!r} cannot be read as safetensors: {found}") from None
    return shapes


def _read_header_size(file: BinaryIO, path: Path, error: type[InputError]) -> int:
    """Return the size of the header that follows in a safetensors file. Raise `error` if it is too large to be one."""
    size = int.from_bytes(file.read(_HEADER_SIZE_BYTES), "little")
    if size > _MAX_HEADER_BYTES:
        raise error(f"{str(path)!r} cannot be read as safetensors: its header has {size:,} bytes, too many to be one")
    return size


def _parse_shape(tensor: Any) -> list[int]:
    """Return a tensor's shape from its entry in a header. Raise ValueError, TypeError or LookupError for any other."""
    shape = tensor["shape"]
    is_shape = isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS
    if not is_shape or not all(type(size) is int and 0 <= size < _MAX_SIZE for size in shape):
        raise ValueError(f"{shape!r:.80} is no shape")
    return shape


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Read all tensors of an adapter's file.

    Args:
        path: the file.

    Returns:
        The tensors and the file's metadata.

    Raises:
        ExchangeError: the file is missing, too large, empty or damaged, or has a number that is not finite.
        FileError: the file cannot be read.
    """
    if not path.is_file():
        raise ExchangeError(f"{str(path)!r} is not a file of tensors: name an adapter's folder")
    with explain_os_errors("read", path):
        if path.stat().st_size > _MAX_ADAPTER_BYTES:
            raise ExchangeError(f"{str(path)!r} is larger than {_MAX_ADAPTER_BYTES:,} bytes: it is not an adapter")
    with open_safetensors(path, ExchangeError) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the handle is not a dict)
        metadata = file.metadata() or {}
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in _READABLE_DTYPES:
            raise ExchangeError(f"{str(path)!r} cannot be read: the numbers of {name} are of type {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ExchangeError(f"{str(path)!r} is damaged: {name} has a value that is not a finite number")
    if not tensors:
        raise ExchangeError(f"{str(path)!r} is empty: it has no tensors")
    return tensors, metadata

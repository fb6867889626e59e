"""The weights of a run in a safetensors file, which may be untrusted: names, shapes and dtypes are checked first."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from minigpt.errors import RunError
from minigpt.system.safetensors_files import open_safetensors

_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int8: "I8",
    torch.uint8: "U8",
}


def serialize_weights(weights: Mapping[str, Tensor]) -> bytes:
    """Return tensors on any device in the safetensors format."""
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def read_weights(path: Path, like: Mapping[str, Tensor], allow_others: bool = False) -> dict[str, Tensor]:
    """Read tensors from an untrusted safetensors file.

    Args:
        path: the file.
        like: the names, shapes and dtypes that it must have; meta tensors are enough.
        allow_others: whether the file may have other tensors too, which are not read.

    Raises:
        RunError: a name, shape or dtype differs, or a value is not finite.
    """
    if not path.is_file():
        raise RunError(f"{str(path)!r} is missing: the run has no weights, or none yet")
    with open_safetensors(path, RunError) as file:
        names = set(file.keys())
        if stray := sorted(like.keys() - names if allow_others else names ^ like.keys()):
            raise RunError(f"{str(path)!r} does not fit config.toml: {stray[0]} is in only one of the two")
        for name, tensor in like.items():
            part, kind, shape = file.get_slice(name), _DTYPES[tensor.dtype], list(tensor.shape)
            if part.get_dtype() != kind or list(part.get_shape()) != shape:
                found = f"{part.get_dtype()} of shape {list(part.get_shape())}, not {kind} of {shape}"
                raise RunError(f"{str(path)!r} does not fit config.toml: {name} is {found}")
        weights = {name: file.get_tensor(name) for name in like}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise RunError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")
    return weights

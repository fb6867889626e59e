"""Tensors that several processes write together, each its shards: PyTorch's distributed checkpoint in safetensors.

Its default metadata is a pickle. Its safetensors writer needs none, because the header of each file says which shard of
which tensor the file holds. So any number of processes can read what any other number has written.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.distributed.parallelism import get_local_shard
from minigpt.distributed.process_group import Processes
from minigpt.errors import FileError, RunError
from minigpt.runs.weight_file import read_weights
from minigpt.system.safetensors_files import open_safetensors


def save_sharded_tensors(directory: Path, tensors: Mapping[str, Tensor], processes: Processes) -> Callable[[], None]:
    """Copy the tensors and start to write them, in all processes together.

    A tensor with the same name in all processes is one tensor: its shards, or one copy of it, are written.

    Args:
        directory: gets the files; it is made if it is missing.
        tensors: what this process holds, by name.
        processes: all of them call this function.

    Returns:
        A function that waits until every process has written its shards. It raises FileError if one could not.
    """
    import torch.distributed.checkpoint as dcp  # takes two seconds to import
    from torch.distributed.checkpoint.api import CheckpointException

    writer = dcp.HuggingFaceStorageWriter(str(directory), save_distributed=True)
    future = dcp.async_save(dict(tensors), storage_writer=writer, process_group=processes.checkpoint_group)

    def wait() -> None:
        try:
            future.result()  # type: ignore[union-attr]
        except CheckpointException as error:
            rank, (reason, _) = next(iter(error.failures.items()))
            failure = FileError(f"cannot write {str(directory)!r}: {reason} (rank {rank}): choose another place")
            failure.silent = not processes.is_first  # every process gets this error
            raise failure from None

    return wait


def load_into(targets: Mapping[str, Tensor], path: Path, optional: Collection[str] = ()) -> None:
    """Copy saved tensors into existing tensors, which may be sharded.

    Args:
        targets: the tensors to fill, by name.
        path: a safetensors file, or a directory of shards.
        optional: names that may be missing there; their targets keep their values.

    Raises:
        RunError: a tensor is missing, does not fit its target, or holds a value that is not finite.
    """
    if path.is_file():
        required = {name: target for name, target in targets.items() if name not in optional}
        for name, tensor in read_weights(path, required, allow_others=len(required) < len(targets)).items():
            _copy_into(required[name], tensor)
        return
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    present = {name: targets[name] for name in _find_tensors(path, targets, optional)}
    try:
        with warnings.catch_warnings(action="ignore"):  # about no_dist: each process reads for itself
            dcp.load(present, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    except (Exception, CheckpointException) as error:  # CheckpointException is a BaseException
        raise RunError(f"{str(path)!r} is damaged: {error}") from None
    for name, target in present.items():
        if not torch.isfinite(get_local_shard(target)).all():
            raise RunError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")


def load_full_tensors(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return saved tensors, whole, from a safetensors file or a directory of shards.

    Args:
        path: the file or directory.
        like: the names, shapes and dtypes to expect; meta tensors are enough.

    Raises:
        RunError: as `load_into` does.
    """
    if path.is_file():
        return read_weights(path, like)
    _find_tensors(path, like)  # refuses a wrong file before memory is allocated for it
    tensors = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in like.items()}
    load_into(tensors, path)
    return tensors


def _find_tensors(path: Path, like: Mapping[str, Tensor], optional: Collection[str] = ()) -> list[str]:
    """Return the names of `like` that a directory of shards has. Raise RunError for one missing or misshapen."""
    import torch.distributed.checkpoint as dcp

    for file in path.glob("*.safetensors"):
        with open_safetensors(file, RunError):
            pass  # refuses an untrusted file before PyTorch opens it
    try:
        found: dict[str, Any] = dcp.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except Exception as error:
        raise RunError(f"{str(path)!r} is damaged: {error}") from None
    for name, tensor in like.items():
        if name not in found and name not in optional:
            raise RunError(f"{str(path)!r} does not fit config.toml: {name} is missing")
        if name in found:
            metadata = found[name]
            covered = sum(chunk.sizes.numel() for chunk in metadata.chunks)
            if (metadata.size, metadata.properties.dtype, covered) != (tensor.shape, tensor.dtype, tensor.numel()):
                saved = f"{covered:,} numbers of {metadata.properties.dtype} for a shape of {list(metadata.size)}"
                expected = f"{tensor.dtype} of {list(tensor.shape)}"
                raise RunError(f"{str(path)!r} does not fit config.toml: {name} is {saved}, not {expected}")
    return [name for name in like if name in found]


def _copy_into(target: Any, tensor: Tensor) -> None:
    """Copy a whole tensor into a target that may be sharded."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = target.device_mesh, target.placements
        tensor = distribute_tensor(tensor.to(target.device), mesh, placements, src_data_rank=None)
    target.copy_(tensor)

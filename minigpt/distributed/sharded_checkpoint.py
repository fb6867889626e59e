"""What many processes save at once, each its part: PyTorch's distributed checkpoint, in safetensors.

Its usual metadata is a pickle; with its writer of safetensors it needs none, since each file says in its header which
part of which tensor it holds. So any number of processes reads what any other number has written.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.distributed.processes import Processes, part
from minigpt.errors import FileError, RunError
from minigpt.runs.run_directory import read_weights
from minigpt.system.safetensors_files import open_safetensors


def write_parts(folder: Path, tensors: Mapping[str, Tensor], processes: Processes) -> Callable[[], None]:
    """Copy tensors, and begin to write them, in all processes; what to call to wait until each has written its part.

    What is the same in all is written by one; what has a name of its own, by the process that has it. To wait raises
    FileError if it can't be written.
    """
    import torch.distributed.checkpoint as dcp  # two seconds to import, and seldom needed
    from torch.distributed.checkpoint.api import CheckpointException

    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    written = dcp.async_save(dict(tensors), storage_writer=writer, process_group=processes.savers)

    def wait() -> None:
        try:
            written.result()  # type: ignore[union-attr]
        except CheckpointException as error:
            rank, (reason, _) = next(iter(error.failures.items()))
            failure = FileError(f"cannot write {str(folder)!r}: {reason} (rank {rank}): choose another place")
            failure.silent = not processes.first  # all know of it
            raise failure from None

    return wait


def fill(targets: Mapping[str, Tensor], path: Path, may_lack: Collection[str] = ()) -> None:
    """Read saved tensors into others, of which each process may have a part: from one file, or a folder of parts.

    Those that it `may_lack` may be missing. Raises RunError for anything that does not fit.
    """
    if path.is_file():
        there = {name: target for name, target in targets.items() if name not in may_lack}
        for name, whole in read_weights(path, there, and_others=len(there) < len(targets)).items():
            put(whole, there[name])
        return
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    there = {name: targets[name] for name in found_in_parts(path, targets, may_lack)}
    try:
        with warnings.catch_warnings(action="ignore"):  # each process reads for itself, and so is told of the others
            dcp.load(there, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    except (Exception, CheckpointException) as error:  # of which the latter is none
        raise RunError(f"{str(path)!r} is damaged: {error}") from None
    for name, target in there.items():
        if not torch.isfinite(part(target)).all():
            raise RunError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")


def found_in_parts(path: Path, like: Mapping[str, Tensor], may_lack: Collection[str] = ()) -> list[str]:
    """The names of those tensors that a folder of parts has, whole, in their shapes and types; RunError for others."""
    import torch.distributed.checkpoint as dcp

    for file in path.glob("*.safetensors"):
        with open_safetensors(file, RunError):
            pass  # refused, if at all, before anything else looks into it
    try:
        found: dict[str, Any] = dcp.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except Exception as error:
        raise RunError(f"{str(path)!r} is damaged: {error}") from None
    for name, tensor in like.items():
        if name not in found and name not in may_lack:
            raise RunError(f"{str(path)!r} does not fit config.toml: {name} is missing")
        if name in found:
            about = found[name]
            covered = sum(chunk.sizes.numel() for chunk in about.chunks)
            if (about.size, about.properties.dtype, covered) != (tensor.shape, tensor.dtype, tensor.numel()):
                is_now = f"{covered:,} numbers of {about.properties.dtype} for a shape of {list(about.size)}"
                wanted = f"{tensor.dtype} of {list(tensor.shape)}"
                raise RunError(f"{str(path)!r} does not fit config.toml: {name} is {is_now}, not {wanted}")
    return [name for name in like if name in found]


def put(whole: Tensor, target: Any) -> None:
    """Copy a whole tensor into one of which each process may have a part."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = target.device_mesh, target.placements
        whole = distribute_tensor(whole.to(target.device), mesh, placements, src_data_rank=None)
    target.copy_(whole)


def saved(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors that were saved, with the names, shapes and types of others, which need hold nothing."""
    if path.is_file():
        return read_weights(path, like)
    found_in_parts(path, like)  # before there is memory for it
    tensors = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in like.items()}
    fill(tensors, path)
    return tensors

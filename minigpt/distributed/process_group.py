"""The processes of one training, started by torchrun or by `minigpt train --processes`, which calls torchrun."""

import datetime
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from minigpt.errors import DataError, DeviceError, InputError, LostProcessError, MinigptError, WorkError

TIMEOUT = datetime.timedelta(minutes=30)  # a process waits this long for the others
POLL_SECONDS = 0.02
REMOTE_ERRORS = ("gloo", "NCCL", "ProcessGroup")  # words in errors that another process has caused


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together, seen from one of them.

    Attributes:
        rank: number of this process, from 0. The process of rank 0 prints and writes for all.
        size: number of processes.
        checkpoint_group: a second group of the same processes, for checkpoints that are written during training.
    """

    rank: int = 0
    size: int = 1
    checkpoint_group: Any = None

    @property
    def is_first(self) -> bool:
        """True in the process that prints and writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return True if the flag is set in at least one process."""
        return bool(self._reduce(flag, dist.ReduceOp.MAX))

    def sum(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        return self._reduce(number, dist.ReduceOp.SUM)

    def max(self, number: int) -> int:
        """Return the largest number of all processes."""
        return int(self._reduce(number, dist.ReduceOp.MAX))

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value in every process."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.any(False)

    def require_same(self, *values: Any) -> None:
        """Raise DataError in every process unless the values are the same in all of them."""
        with self.share_errors():
            if self.any(self.broadcast(values) != values):
                raise DataError(
                    "the processes do not train the same run: their texts, settings or checkpoints differ; "
                    "give every machine the same command and the same disk"
                )

    @contextmanager
    def share_errors(self) -> Iterator[None]:
        """Raise an error of the block in every process, if it happens in one. Only the first process prints it."""
        if self.size == 1:
            yield
            return
        own: MinigptError | None = None
        try:
            yield
        except MinigptError as error:
            own = error
        errors: list[tuple[str, int] | None] = [None] * self.size
        dist.all_gather_object(errors, own and (str(own), own.exit_status))
        for rank, failed in enumerate(errors):
            if failed:
                message, status = failed
                kind = InputError if status == InputError.exit_status else WorkError
                shared = own if own and rank == self.rank else kind(f"rank {rank}: {message}" if rank else message)
                shared.silent = not self.is_first
                raise shared

    def _reduce(self, number: float, operation: Any) -> float:
        if self.size == 1:
            return number
        tensor = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.item()


SINGLE = Processes()


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Connect to the processes that torchrun started beside this one; without torchrun there is only this one.

    Raises:
        DeviceError: torchrun's variables are set, but the other processes cannot be reached.
        LostProcessError: another process ended during the block.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
        yield SINGLE
        return
    backend = _choose_backend()
    is_owner = not dist.is_initialized()
    if is_owner:
        try:
            store, rank, size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
            store = dist.PrefixStore(_agree_on_name(store, rank, size), store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        except (ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise DeviceError(
                f"WORLD_SIZE is set, but the other processes cannot be reached ({reason}): start with torchrun"
            ) from None
    with _explain_lost_process():
        try:
            yield Processes(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))
            if is_owner:
                dist.barrier()
        finally:  # a group that is still open when Python ends may abort the process
            if is_owner:
                dist.destroy_process_group()


def _choose_backend() -> str:
    """Return the backends for this machine, and give each process its GPU. Raise DeviceError for too few GPUs."""
    if not torch.cuda.is_available():
        return "gloo"
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local_size > torch.cuda.device_count():
        raise DeviceError(
            f"{local_size} processes need {local_size} GPUs, but this machine has {torch.cuda.device_count()}: "
            "start fewer processes"
        )
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "cpu:gloo,cuda:nccl"


def _agree_on_name(store: Any, rank: int, size: int) -> str:
    """Return a new name for the group of processes, the same in all of them.

    When torchrun restarts the processes, it keeps the store, and the store still has the addresses of dead processes.
    So the name must be new. Each process writes its own random name into the store. The first process answers each
    of them with its own, until every answer has been read.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"hello {rank}", own)
        name = store.get(f"answer to {own}").decode()
        store.set(f"{name} was read by {rank}", "")
        return name
    receipts = [f"{own} was read by {other}" for other in range(1, size)]
    start = time.monotonic()
    while not store.check(receipts):
        if time.monotonic() - start > TIMEOUT.total_seconds():
            raise RuntimeError("some of them did not come")
        for other in range(1, size):
            if store.check([f"hello {other}"]):
                store.set(f"answer to {store.get(f'hello {other}').decode()}", own)
        time.sleep(POLL_SECONDS)
    return own


@contextmanager
def _explain_lost_process() -> Iterator[None]:
    """Raise LostProcessError when PyTorch reports that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in REMOTE_ERRORS):
            raise
        reason = str(error).strip().split("\n")[0]
        raise LostProcessError(
            f"another process of this training ended or cannot be reached ({reason[:200]}); "
            "to continue from the last checkpoint: minigpt train --resume"
        ) from None

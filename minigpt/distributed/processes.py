"""Many processes that train one model: started by torchrun, or by `minigpt train --processes`, which calls it.

Each reads its share of every batch. With DDP (distributed data parallel, Li et al. 2020) each has the whole model, and
their gradients are averaged while they are still being computed. With FSDP (fully sharded, Zhao et al. 2023; ZeRO,
Rajbhandari et al. 2020) each has a part of every matrix, of its gradient and of AdamW's averages, and a block is put
together where it is needed. Both are PyTorch's own and are applied to the model from outside, here.
"""

import datetime
import os
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minigpt.config import Config
from minigpt.errors import ConfigError, DataError, DeviceError, InputError, LostProcessError, MinigptError, WorkError
from minigpt.system.device import pick_device

PATIENCE = datetime.timedelta(minutes=30)  # that a process waits for the others
SOON = 0.02  # seconds between two looks
FROM_ABROAD = ("gloo", "NCCL", "ProcessGroup")  # what errors of one process that others cause have in them


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them; one alone, unless torchrun started more.

    Attributes:
        rank: which one this is, from 0; the first one speaks and writes for all.
        size: how many there are.
        savers: the same ones again, for what is saved while they train.
    """

    rank: int = 0
    size: int = 1
    savers: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process."""
        return [bool(n) for n in self._reduced(flags, dist.ReduceOp.MAX)]

    def sum(self, number: float) -> float:
        """The sum over all processes."""
        return self._reduced([number], dist.ReduceOp.SUM)[0]

    def told(self, value: Any) -> Any:
        """What the first process says, whatever it is in the others."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def most(self, number: int) -> int:
        """The largest of all processes' numbers."""
        return int(self._reduced([number], dist.ReduceOp.MAX)[0])

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)

    def require_alike(self, *what: Any) -> None:
        """Raise DataError, in all, unless that is the same in all processes."""
        with self.together():
            [other] = self.any(self.told(what) != what)
            if other:
                raise DataError(
                    "the processes do not train the same: their texts, settings or saves differ; "
                    "let all machines see one disk, and give all the same command"
                )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong in the block in one process is an error in all; the first one says it, with the rank."""
        if self.size == 1:
            yield
            return
        mine: MinigptError | None = None
        try:
            yield
        except MinigptError as error:
            mine = error
        found: list[tuple[str, int] | None] = [None] * self.size
        dist.all_gather_object(found, mine and (str(mine), mine.exit_status))
        for rank, failed in enumerate(found):
            if failed:
                message, status = failed
                kind = InputError if status == InputError.exit_status else WorkError
                ours = mine if mine and rank == self.rank else kind(f"rank {rank}: {message}" if rank else message)
                ours.silent = not self.first
                raise ours

    def _reduced(self, numbers: Sequence[float], how: Any) -> list[float]:
        if self.size == 1:
            return [*numbers]
        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, how)
        return tensor.tolist()


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started beside this one, all of them there; within the block they can speak.

    Raises DeviceError if torchrun's variables are there and the others can't be reached.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
        yield ALONE
        return
    backend = "gloo"
    if torch.cuda.is_available():
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if here > torch.cuda.device_count():
            raise DeviceError(f"{here} processes need as many GPUs, and there are {torch.cuda.device_count()} here")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    mine = not dist.is_initialized()
    if mine:
        try:
            store, rank, size = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))
            store = dist.PrefixStore(name_of_meeting(store, rank, size), store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        except (ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise DeviceError(f"WORLD_SIZE is set, and there are no such processes ({reason}): use torchrun") from None
    with others_explained():
        try:
            yield Processes(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))
            if mine:
                dist.barrier()
        finally:  # what is still open when Python ends may abort it
            if mine:
                dist.destroy_process_group()


def name_of_meeting(store: Any, rank: int, size: int) -> str:
    """A name that all processes agree on, and none that were there before.

    When torchrun starts them anew, it keeps the store, with the addresses of those that died. So each says hello by a
    name that is its own; the first one answers whoever has said hello last, until all have answered to its own name.
    """
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"hello {rank}", mine)
        theirs = store.get(f"answer to {mine}").decode()
        store.set(f"{theirs} is heard by {rank}", "")
        return theirs
    heard = [f"{mine} is heard by {other}" for other in range(1, size)]
    began = time.monotonic()
    while not store.check(heard):
        if time.monotonic() - began > PATIENCE.total_seconds():
            raise RuntimeError("not all of them have come")
        for other in range(1, size):
            if store.check([f"hello {other}"]):
                store.set(f"answer to {store.get(f'hello {other}').decode()}", mine)
        time.sleep(SOON)
    return mine


@contextmanager
def others_explained() -> Iterator[None]:
    """Turn what happens to a process when another is gone into a LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in FROM_ABROAD):
            raise
        reason = str(error).strip().split("\n")[0]
        raise LostProcessError(
            "another process of this training has ended or cannot be reached, and none goes on alone "
            f"({reason[:200]}); to go on from the last save: minigpt train --resume"
        ) from None


def require_shares(config: Config, processes: Processes) -> None:
    """Raise ConfigError for a batch that has nothing for some process, or what FSDP cannot have."""
    training = config.training
    if processes.size == 1:
        return
    if training.batch_size < processes.size:
        few = f"a batch_size of {training.batch_size}"
        raise ConfigError(f"{processes.size} processes cannot share {few}: name at least as many windows")
    if training.max_minutes is not None:
        raise ConfigError("a budget of time is measured on one process: name --max-iters for several")
    if pick_device(training.device).type == "mps":
        raise ConfigError("several processes cannot share this machine's GPU: choose --device cpu")
    if training.parallel == "fsdp" and training.optimizer == "muon":
        raise ConfigError(
            "muon needs whole matrices, and fsdp gives each process a part of them: choose --parallel ddp, or "
            "--optimizer adamw"
        )
    if training.parallel == "fsdp" and training.precision == "fp16":
        raise ConfigError("fsdp does not go with fp16, whose losses are scaled: choose --precision bf16 or fp32")


def shards(config: Config, processes: Processes) -> bool:
    """Whether each process has only a part of the parameters."""
    return processes.size > 1 and config.training.parallel == "fsdp"


def spread(model: nn.Module, config: Config, processes: Processes) -> nn.Module:
    """The model as it is to be called in each of several processes, for its gradients to be those of all."""
    if processes.size == 1:
        return model
    if not shards(config, processes):
        return DistributedDataParallel(model, broadcast_buffers=False)  # masks, the same in all
    from torch.distributed.device_mesh import init_device_mesh  # a second to import, and seldom needed
    from torch.distributed.fsdp import fully_shard

    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # the logits are a view, and stay as they are
    mesh = init_device_mesh(next(model.parameters()).device.type, (processes.size,))
    for block in getattr(model, "blocks", []):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def synchronize(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward of what `spread` made is to add up the gradients of all: with DDP once a step does.

    FSDP adds them up at each batch, since none of its processes is to hold a whole gradient.
    """
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = wanted


def in_parts(model: Any) -> None:
    """Let a model of which each process has a part, and which an evaluation has left whole, be in parts again."""
    if hasattr(model, "reshard"):
        model.reshard()


def whole(tensor: Any) -> Tensor:
    """A tensor of which each process may have a part, put together in all of them."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part(tensor: Any) -> Tensor:
    """What this process has of a tensor of which each may have a part."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor

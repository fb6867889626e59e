"""Start the processes of one training, and restart them after a crash: PyTorch's own launcher, torchrun."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from minigpt.errors import LostProcessError
from minigpt.system.cpus import count_cpus

POLL_SECONDS = 0.1
SHUTDOWN_SECONDS = 300  # time to evaluate and to write a checkpoint after a signal
HAS_SHUTDOWN_TIMEOUT = "shutdown_timeout" in LaunchConfig.__annotations__  # PyTorch 2.10 waits for 30 seconds


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> int:
    """Run `minigpt` with these arguments in several processes on this machine.

    If a process dies, all of them are restarted and resume from the last checkpoint.

    Args:
        arguments: the words after `minigpt`.
        processes: number of processes.
        max_restarts: how often to restart them.

    Returns:
        The exit status.

    Raises:
        LostProcessError: a process was killed, and no restart is left.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cpus() // processes)))
    logging.disable()  # the processes print their own errors; the launcher would repeat them with tracebacks
    timeout: dict[str, Any] = {"shutdown_timeout": SHUTDOWN_SECONDS} if HAS_SHUTDOWN_TIMEOUT else {}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=POLL_SECONDS,
        local_addr="localhost",
        **timeout,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "minigpt", *arguments)
        return 0
    except SignalException as error:  # the launcher has passed the signal on
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, failure = _find_root_cause(error.failures)
        if failure.exitcode > 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        tries = f" after {max_restarts} restart{'s' if max_restarts > 1 else ''}" if max_restarts else ""
        raise LostProcessError(
            f"process {rank} was killed by {name}{tries}: minigpt train --resume continues from the last checkpoint, "
            "and --max-restarts does it automatically"
        ) from None


def _find_root_cause(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the first worker that failed, with its rank, ignoring those the launcher stopped.

    A worker that was killed comes before one that exited with an error.
    """

    def order(item: tuple[int, ProcessFailure]) -> tuple[bool, int]:
        status = item[1].exitcode
        killed = status < 0 and status != -signal.SIGTERM  # the launcher stops workers with SIGTERM
        return killed, abs(status) if killed else status  # SIGABRT, 6, ends a worker after another one is gone

    return max(failures.items(), key=order)

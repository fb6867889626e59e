"""Starting the processes of one training, and starting them again: torchrun's own launcher, called from here."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from minigpt.errors import LostProcessError

SOON = 0.1  # seconds between two looks at the processes
LAST = 300  # seconds that they have to measure and save, once they are told to stop


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> int:
    """Run `minigpt` with these arguments in so many processes on this machine; the exit status.

    If one of them dies, all are started again, at most so many times, and go on from the last save. What they have to
    say they say themselves. Raises LostProcessError if one was killed once too often.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    logging.disable()  # the launcher would tell all that again, with tracebacks
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=SOON,
        local_addr="localhost",
        shutdown_timeout=LAST,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "minigpt", *arguments)
        return 0
    except SignalException as error:  # which was passed on to all
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, failure = root_cause(error.failures)
        if failure.exitcode > 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        tries = f" for the {max_restarts + 1}th time" if max_restarts else ""
        raise LostProcessError(
            f"process {rank} was killed by {name}{tries}: minigpt train --resume goes on from the last save, "
            "and --max-restarts does so by itself"
        ) from None


def root_cause(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Which of the processes that ended ended by itself: one that was killed, but for those that the launcher ended.

    Else the first one that the user's input stopped, or that failed.
    """

    def order(found: tuple[int, ProcessFailure]) -> tuple[bool, int]:
        status = found[1].exitcode
        killed = status < 0 and status != -signal.SIGTERM
        return killed, abs(status) if killed else status  # SIGABRT, 6, is how one ends that another left alone

    return max(failures.items(), key=order)

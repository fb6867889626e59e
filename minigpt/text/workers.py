"""Processes that share work out between them, and end with the one that started them."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process


def workers(processes: int, prepare: Callable[..., None] | None = None, *arguments: object) -> ProcessPoolExecutor:
    """So many processes, each of which first calls `prepare`; Ctrl-C is left to the one that started them."""
    return ProcessPoolExecutor(processes, get_context("spawn"), _begin, (prepare, arguments))


def _begin(prepare: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare(*arguments)


def _end_with_parent() -> None:
    """End this process with its parent, also one that was killed; a pool's own workers would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

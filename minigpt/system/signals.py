"""Signals that ask the program to stop. Windows has no SIGHUP, and cannot hold signals back."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # a terminal sends them to all of its processes


def list_stop_signals() -> list[signal.Signals]:
    """Return the signals of this system that ask a program to stop: Ctrl-C, SIGTERM and SIGHUP."""
    return [getattr(signal, name) for name in _STOP_SIGNALS if hasattr(signal, name)]


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the program by SystemExit, with the status that a shell expects.

    SIGHUP, which is sent when the terminal is closed, stays ignored in a program that was started with nohup.
    """
    for number in list_stop_signals():
        if number != signal.SIGINT and (number == signal.SIGTERM or signal.getsignal(number) is signal.SIG_DFL):
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    """Exit with the status of a program that this signal ended."""
    sys.exit(128 + number)


@contextmanager
def block_signals() -> Iterator[None]:
    """Hold these signals back within the block, where the system can. Processes that start in it inherit the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, list_stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

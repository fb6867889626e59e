"""Stop cleanly: the first Ctrl-C, SIGTERM or SIGHUP is noted, the second one acts at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from minigpt.system.signals import list_stop_signals

REPEAT_SECONDS = 0.5  # a SIGTERM that follows within this time is the same one
NOTICE = b"\nstopping: evaluating and saving (press Ctrl-C again to stop at once)\n"


class Interrupt:
    """A context that only notes the first SIGINT, SIGTERM or SIGHUP, so that the work can end at a good place.

    When the context ends, the signal acts as it would have without it. A second signal acts at once. A signal that the
    caller ignores stays ignored. Two SIGTERMs in quick succession count as one: a system that ends a group of processes
    signals each of them, and the launcher among them passes the signal on.

    Attributes:
        received: the signal's number, or 0 before one has come.
    """

    def __init__(self, quiet: bool = False) -> None:
        """Prepare the context; `quiet` prints nothing when a signal comes."""
        self.received, self.quiet = 0, quiet
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            ignored = (signal.SIG_IGN, None)
            handled = [number for number in list_stop_signals() if signal.getsignal(number) not in ignored]
            self._before = {number: signal.signal(number, self._note) for number in handled}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if number == signal.SIGTERM == self.received and time.monotonic() - self._since < REPEAT_SECONDS:
                return
            self._restore_handlers()
            signal.raise_signal(number)
            return
        self.received, self._since = number, time.monotonic()
        if sys.__stderr__ and not self.quiet:
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(sys.__stderr__.fileno(), NOTICE)  # a handler may interrupt a print: it must not print

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._restore_handlers()
        if self.received and kind is None:
            signal.raise_signal(self.received)

"""Stop cleanly: the first Ctrl-C, SIGTERM or SIGHUP is noted, the second one acts at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
AT_ONCE = 0.5  # seconds
NOTICE = b"\nstopping in good order: measuring and saving (again to stop at once)\n"


class Interrupt:
    """A context in which a first SIGINT, SIGTERM or SIGHUP is only noted, for the work to end when it can.

    A second one acts as it would have without the context; the first one does too, when the context
    ends. A signal that the caller ignores stays ignored. A SIGTERM that comes twice at once is one: a system that ends
    a group of processes tells each of them, and so does the launcher among them.

    Attributes:
        received: the signal's number, or 0 as long as none has come.
    """

    def __init__(self, quiet: bool = False) -> None:
        """If `quiet`, nothing is said when a signal comes."""
        self.received, self.quiet = 0, quiet
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread do this
            heeded = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if number == signal.SIGTERM == self.received and time.monotonic() - self._since < AT_ONCE:
                return
            self._give_back()
            signal.raise_signal(number)
            return
        self.received, self._since = number, time.monotonic()
        if sys.__stderr__ and not self.quiet:
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(sys.__stderr__.fileno(), NOTICE)  # a handler may interrupt a print: it must not print

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._give_back()
        if self.received and kind is None:
            signal.raise_signal(self.received)

"""Forked processes: whether the system has them, and what a fork does not copy, such as threads."""

import os
import sys

CAN_FORK = sys.platform == "linux"  # macOS's own libraries do not survive a fork, and Windows has none


class ForkDetector:
    """Remembers the process that started something. Windows does not fork: there it is always the same process."""

    def __init__(self) -> None:
        self._starter: int | None = None

    def mark_started(self) -> None:
        """Remember this process as the one that started it."""
        self._starter = os.getpid()

    @property
    def is_forked(self) -> bool:
        """True if another process started it, from which this one was forked."""
        return self._starter not in (None, os.getpid())

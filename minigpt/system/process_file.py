"""A file that names the process that does some work. It is locked for as long as that process lives.

A process id alone proves nothing: when a process ends, the system gives its id to another one. The lock proves that the
process lives which has written the file. Reading does not disturb the work.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from minigpt.system.files import explain_os_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CAN_LOCK = fcntl is not None  # False on Windows, where no process can be found
MAX_BYTES = 32  # of a file with a process id


@contextlib.contextmanager
def name_process(path: Path) -> Iterator[None]:
    """Name this process in a file during the block.

    The file gets its name only after it is written and locked. So whoever finds it locked reads the id of the process
    that holds the lock. On a file system without locks nobody finds this process, and on Windows there is no file.

    Args:
        path: the file; one that exists is replaced.

    Raises:
        FileError: the file cannot be written.
    """
    if not CAN_LOCK:
        yield
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.ExitStack() as stack:
        with explain_os_errors("write", path):
            temporary.unlink(missing_ok=True)
            file = stack.enter_context(temporary.open("x"))
            file.write(str(os.getpid()))
            file.flush()
            try_lock(file)
            temporary.replace(path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the folder may have been moved away
                path.unlink()


def find_process(path: Path) -> int | None:
    """Return the id of the process that a file of `name_process` names; None if that process has ended."""
    with contextlib.suppress(OSError, ValueError):
        if path.is_symlink():
            return None
        with path.open(encoding="utf-8") as file:
            if is_locked(file):
                return int(file.read(MAX_BYTES))
    return None


def signal_process(path: Path, number: signal.Signals) -> bool:
    """Send a signal to the process that a file names. Return False, and send nothing, if that process has ended.

    The process is opened before it is checked, where the system can do so (Linux). Then the signal cannot reach
    another process that got the same id in the meantime.

    Args:
        path: a file of `name_process`.
        number: the signal.

    Raises:
        FileError: the process belongs to another user.
    """
    pid = find_process(path)
    if pid is None:
        return False
    with explain_os_errors("signal the process of", path), contextlib.suppress(ProcessLookupError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, number)
            return True
        descriptor = os.pidfd_open(pid)
        try:
            if find_process(path) != pid:
                return False
            signal.pidfd_send_signal(descriptor, number)
            return True
        finally:
            os.close(descriptor)
    return False


def try_lock(file: IO) -> bool:
    """Lock an open file, until it is closed here and in all processes that inherited it. Return False if it cannot be.

    Another process may hold the lock, or the file system may have none.
    """
    if not CAN_LOCK:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(file: IO) -> bool:
    """Return True if another process holds the lock of `try_lock`, or this process by another opening of the file."""
    if not CAN_LOCK:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    return False

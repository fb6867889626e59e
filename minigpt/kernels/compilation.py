"""The first use of compiled loops: a notice while the compiler works, a warning where it cannot."""

import logging
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

NOTICE_SECONDS = 1.5  # loading compiled loops takes less, compiling them more
Loaded = TypeVar("Loaded")
_has_loaded = False


def has_loaded_loops() -> bool:
    """Return True if this process has loaded compiled loops: Numba has started, and further loops load at once."""
    return _has_loaded


def compile_or_warn(loops: str, load: Callable[[], Loaded], without: str) -> Loaded | None:
    """Return what `load` returns, or warn and return None where Numba is missing or cannot work.

    Args:
        loops: their name in the notice, such as "loops that generate text".
        load: imports and compiles them.
        without: what happens without them, for the warning.
    """
    global _has_loaded
    notice = threading.Timer(NOTICE_SECONDS, logger.info, [f"compiling the {loops}, once on this machine ..."])
    notice.start()
    try:
        loaded = load()
        _has_loaded = True
        return loaded
    except Exception as error:  # Numba's own errors, those of its cache directory, or an ImportError
        reason = str(error).split("\n")[0]
        warnings.warn(f"{without}: Numba does not work here ({reason})", stacklevel=3)
        return None
    finally:
        notice.cancel()

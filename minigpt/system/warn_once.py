"""A warning that comes once in a process."""

import functools
import warnings


@functools.cache
def warn_once(message: str) -> None:
    """Warn the first time that a message comes. Python itself repeats it when libraries change its filters."""
    warnings.warn(message, stacklevel=2)

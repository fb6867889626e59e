"""The memory of this process."""

import sys


def measure_peak_memory() -> int | None:
    """Return the most bytes that this process has had in memory; None on Windows, which does not tell Python."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB

"""Time `minigpt --help` and, for comparison, a Python process that does nothing.

    python benchmarks/startup.py

Both run in turns.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 21


def time_command(*command: str | Path) -> float:
    """Return the wall time of a command in seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print the medians and the median of the ratios."""
    program = Path(sys.executable).with_name("minigpt")
    pairs = [(time_command(program, "--help"), time_command(sys.executable, "-c", "pass")) for _ in range(RUNS)]
    ours, floor = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"minigpt --help {ours:.0f} ms, python -c pass {floor:.0f} ms, ratio {ratio:.1f} (medians of {RUNS})")


if __name__ == "__main__":
    main()

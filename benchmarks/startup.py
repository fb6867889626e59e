"""How long `minigpt --help` takes, as a ratio to the floor: Python starting and doing nothing.

    python benchmarks/startup.py

The two are run in turn, so that a machine whose speed drifts slows both.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 21


def seconds(*command: str | Path) -> float:
    """The wall time of one run of a command."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    """Print the medians and the median of the ratios."""
    program = Path(sys.executable).with_name("minigpt")
    pairs = [(seconds(program, "--help"), seconds(sys.executable, "-c", "pass")) for _ in range(RUNS)]
    ours, floor = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"minigpt --help {ours:.0f} ms, python -c pass {floor:.0f} ms, ratio {ratio:.1f} (medians of {RUNS})")


if __name__ == "__main__":
    main()

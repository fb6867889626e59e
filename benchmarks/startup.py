"""Time how long commands take from start to end, beside the import of PyTorch alone.

    python benchmarks/startup.py --rounds 5

Each round runs every command once, in a new process, on a text that the program writes. The table has medians: the
seconds of a command, and of the differences to `python -c "import torch"` in the same round; and the same for the time
that the command uses the CPUs, which other programs on the machine disturb less (not on Windows).
"""

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from processor import describe_processor

IMPORT_TORCH = 'python -c "import torch"'
TEXT = 100_000  # characters


def time_command(*command: str, cwd: Path) -> tuple[float, float]:
    """Return the wall time and the CPU time of a command in seconds."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, cwd=cwd, capture_output=True)
    end, after = time.perf_counter(), os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return end - start, cpu


def write_text(path: Path) -> None:
    """Write a text of random words."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(500)]
    path.write_text("\n".join(" ".join(rng.choices(words, k=8)) for _ in range(TEXT // 48)), encoding="utf-8")


def describe(seconds: Sequence[float], base: Sequence[float]) -> list[str]:
    """Return the median as text, and the median, lowest and highest difference to the base of the same round."""
    differences = [mine - other for mine, other in zip(seconds, base, strict=True)]
    low, middle, high = min(differences), statistics.median(differences), max(differences)
    beyond = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})" if any(differences) else ""
    return [f"{statistics.median(seconds):.2f}", beyond]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    program = str(Path(sys.executable).with_name("minigpt"))
    train = [program, "train", "--data", "text.txt", "--max-iters", "20", "--eval-interval", "20", "--overwrite"]
    commands = {
        IMPORT_TORCH: [sys.executable, "-c", "import torch"],
        "minigpt --help": [program, "--help"],
        "minigpt info RUN": [program, "info", "runs/lecture"],
        "minigpt runs": [program, "runs"],
        "minigpt sample RUN --max-new-tokens 200": [program, "sample", "runs/lecture", "--max-new-tokens", "200"],
        "minigpt train --max-iters 20 --eval-interval 20": train,
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt")
        subprocess.run(train, check=True, cwd=folder, capture_output=True)  # the run, and warm caches
        for _ in range(rounds):
            for title, command in commands.items():
                taken[title].append(time_command(*command, cwd=folder))
    print(f"{describe_processor()}, Python {platform.python_version()}, medians of {rounds} rounds\n")
    print("| command | seconds | beyond `import torch` | CPU seconds | beyond `import torch` |")
    print("| --- | --- | --- | --- | --- |")
    for title, times in taken.items():
        cells: list[str] = []
        for seconds, base in zip(zip(*times, strict=True), zip(*taken[IMPORT_TORCH], strict=True), strict=True):
            cells += describe(seconds, base)
        print(f"| `{title}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""Time how long commands take from start to end, beside the import of PyTorch alone.

    python benchmarks/startup.py --rounds 5

Each round runs every command once, in a new process, on a text that the program writes. The table has medians: the
seconds of a command, and the median of the differences to `python -c "import torch"` in the same round.
"""

import argparse
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processor import describe_processor

IMPORT_TORCH = 'python -c "import torch"'
TEXT = 100_000  # characters


def time_command(*command: str, cwd: Path) -> float:
    """Return the wall time of a command in seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=cwd, capture_output=True)
    return time.perf_counter() - start


def write_text(path: Path) -> None:
    """Write a text of random words."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(500)]
    path.write_text("\n".join(" ".join(rng.choices(words, k=8)) for _ in range(TEXT // 48)))


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
    taken: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt")
        subprocess.run(train, check=True, cwd=folder, capture_output=True)  # the run, and warm caches
        for _ in range(rounds):
            for title, command in commands.items():
                taken[title].append(time_command(*command, cwd=folder))
    print(f"{describe_processor()}, Python {platform.python_version()}, medians of {rounds} rounds\n")
    print("| command | seconds | beyond `import torch` |\n| --- | --- | --- |")
    for title, seconds in taken.items():
        differences = [mine - base for mine, base in zip(seconds, taken[IMPORT_TORCH], strict=True)]
        low, high = min(differences), max(differences)
        beyond = "" if title == IMPORT_TORCH else f"{statistics.median(differences):+.2f} ({low:+.2f} to {high:+.2f})"
        print(f"| `{title}` | {statistics.median(seconds):.2f} | {beyond} |")


if __name__ == "__main__":
    main()

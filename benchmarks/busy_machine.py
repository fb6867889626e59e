"""Time trainings by the command beside another program that takes a whole core, and on a quiet machine.

    python benchmarks/busy_machine.py --data input.txt --rounds 3

The lecture preset trains in four ways, in turns. They differ in what threads do while they wait for each other:

- they sleep on a busy machine and spin on a quiet one, as `minigpt` chooses;
- they always spin, as OpenMP's default is;
- they always sleep (OMP_WAIT_POLICY=passive);
- there is only one thread.

The other program is a Python loop. Prints the steps per second of each way, and their ratio to those of one thread on
the quiet machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from processor import describe_processor

SETTINGS: dict[str, dict[str, str]] = {
    "sleep on a busy machine (the default)": {},
    "always spin": {"GOMP_SPINCOUNT": "300000"},  # OpenMP's default
    "always sleep": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = "while True: pass"


def train(data: str, steps: int, environment: dict[str, str]) -> float:
    """Return the steps per second of a training by the command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["train", "--data", data, "--out", out, "--max-iters", steps, "--eval-interval", steps]
        words += ["--eval-windows", "4", "--snapshots", "0", "--json"]
        command = [sys.executable, "-m", "minigpt", *map(str, words)]
        done = subprocess.run(command, check=True, capture_output=True, env=os.environ | environment)
        return steps / json.loads(done.stdout)["training_seconds"]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the text")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rates: dict[tuple[str, bool], list[float]] = {(name, busy): [] for busy in (False, True) for name in SETTINGS}
    for _ in range(arguments.rounds):
        for (name, busy), measured in rates.items():
            other = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
            try:
                measured.append(train(arguments.data, arguments.steps, SETTINGS[name]))
            finally:
                if other:
                    other.kill()
                    other.wait()
    quiet = statistics.median(rates["one thread", False])
    print(f"{describe_processor()}\n")
    print("| threads | quiet: steps/s | of one quiet thread | busy: steps/s | of one quiet thread |")
    print("| --- " * 5 + "|")
    for name in SETTINGS:
        medians = [statistics.median(rates[name, busy]) for busy in (False, True)]
        print(f"| {name} | {' | '.join(f'{rate:.1f} | {rate / quiet:.2f}' for rate in medians)} |")


if __name__ == "__main__":
    main()

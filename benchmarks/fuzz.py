"""Thousands of files as a stranger might leave them, read by every reader there is: only a result, or our own error?

    python benchmarks/fuzz.py --files 20000 --seed 0

Each file is a sound sample changed at random, by its kind: bits, lengths, numbers, keys, shapes, lines. It is read in a
process of its own that may take a gigabyte more than it has, and five seconds of work a file. Anything but a result or
one of minigpt's errors is named with its number, by which tests/fuzz_targets.py makes the same file again; the status
is then 1.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import fuzz_targets


def main() -> None:
    """Read, and print a line for each reader."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=20_000, help="of all readers together, at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    each = range(-(-arguments.files // len(fuzz_targets.READERS)))
    findings: list[str] = []
    total = 0
    print(f"{'reader':<42}{'files':>7}{'valid':>7}{'refused':>9}{'else':>6}")
    for name, found in fuzz_targets.counts(each, arguments.seed):
        total += len(each)
        findings += found.findings
        print(f"{name:<42}{len(each):>7}{found.valid:>7}{found.refused:>9}{len(found.findings):>6}", flush=True)
    print(f"{total:,} files, seed {arguments.seed}: {len(findings)} were neither read nor refused")
    print(*findings, sep="\n")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()

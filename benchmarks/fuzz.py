"""Read thousands of damaged files with every file reader: each must be read, or refused with one of our own errors.

    python benchmarks/fuzz.py --files 20000 --seed 0

Each file is a valid one with random changes: bits, lengths, numbers, keys, shapes, lines. A process of its own
reads it, with a gigabyte of memory and five seconds. Any other result is printed with the number of the file, from
which tests/fuzz_targets.py makes the same file again; the exit status is then 1.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import fuzz_targets


def main() -> None:
    """Print a line for each reader."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=20_000, help="files for all readers together")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    each = range(-(-arguments.files // len(fuzz_targets.TARGETS)))
    findings: list[str] = []
    total = 0
    print(f"{'reader':<42}{'files':>7}{'valid':>7}{'refused':>9}{'else':>6}")
    for name, found in fuzz_targets.fuzz(each, arguments.seed):
        total += len(each)
        findings += found.findings
        print(f"{name:<42}{len(each):>7}{found.valid:>7}{found.refused:>9}{len(found.findings):>6}", flush=True)
    print(f"{total:,} files, seed {arguments.seed}: {len(findings)} neither read nor refused")
    print(*findings, sep="\n")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()

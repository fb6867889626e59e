"""Kill a training at hundreds of moments and at every write, and check that the resumed run is the same.

    python benchmarks/soak.py --kills 500

First, a real process is killed at random moments, several times a run, and the run is resumed to its end. Then
every single write, flush, rename and removal of a training is the last operation of its process, or fails as on a
full disk. Each run must end with the same weights, metrics and samples as one that was never stopped, bit for bit.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import fault_injection
from conftest import make_text


def main() -> None:
    """Print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "text").write_text(make_text())
        settings = fault_injection.SETTINGS | {"data": folder / "text"}
        expected = finish_run(folder / "whole", settings)
        assert expected is not None, "the training itself fails"
        kills, runs, same = 0, 0, 0
        rng = random.Random(arguments.seed)
        while kills < arguments.kills:
            (folder / "run").mkdir()
            kills, runs = kills + fault_injection.killed(folder / "run", settings, rng), runs + 1
            same += finish_run(folder / "run", settings) == expected
            print_progress(
                f"{kills} kills at random moments of {runs} runs: {same} runs as if never stopped", runs == same
            )
        operations = count_operations(folder / "count", settings)
        for how, verb in (("kill", "killed"), ("fail", "failing")):
            same = 0
            for at in range(1, operations + 1):
                (folder / "run").mkdir()
                code = fault_injection.finish(folder / "run", settings, (at, how))
                assert code != 0, f"nothing happened at operation {at}"
                same += finish_run(folder / "run", settings) == expected
                print_progress(
                    f"{verb} at each of {at} writes, flushes, renames, removals: {same} as if never stopped", same == at
                )


def count_operations(folder: Path, settings: dict) -> int:
    """Return the number of file operations of a training."""
    folder.mkdir()
    fault_injection.finish(folder, settings, (0, "count"))
    return int((folder / "operations").read_text())


def finish_run(folder: Path, settings: dict) -> dict | None:
    """Finish the training in a folder, remove the folder, and return the result."""
    folder.mkdir(exist_ok=True)
    code = fault_injection.finish(folder, settings)
    story = fault_injection.story(folder / "run") if code == 0 else None
    if story is None:
        print((folder / "errors.txt").read_text()[-1000:])
    shutil.rmtree(folder)
    return story


def print_progress(line: str, good: bool) -> None:
    """Print a line over the previous one; keep it if something is wrong."""
    print(f"\r{line}", end="" if good else "\n", flush=True)


if __name__ == "__main__":
    main()
    print()

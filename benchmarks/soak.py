"""A training killed at hundreds of moments, and struck at every write: does it become what it would have been?

    python benchmarks/soak.py --kills 500

Each round kills a real process at a random moment, several times over, and lets the run go on to its end; then every
single write, flush, rename and removal of a training is the last thing that its process does, or fails as on a full
disk. Every run has to end with the weights, metrics and texts of one that was never stopped, bit for bit.
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
    """Measure, and print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="at random moments")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "text").write_text(make_text())
        settings = fault_injection.SETTINGS | {"data": folder / "text"}
        expected = run_to_its_end(folder / "whole", settings)
        assert expected is not None, "the training itself fails"
        kills, runs, same = 0, 0, 0
        rng = random.Random(arguments.seed)
        while kills < arguments.kills:
            (folder / "run").mkdir()
            kills, runs = kills + fault_injection.killed(folder / "run", settings, rng), runs + 1
            same += run_to_its_end(folder / "run", settings) == expected
            show(f"{kills} kills at random moments of {runs} runs: {same} runs as if never stopped", runs == same)
        operations = counted(folder / "count", settings)
        for how, verb in (("kill", "killed"), ("fail", "failing")):
            same = 0
            for at in range(1, operations + 1):
                (folder / "run").mkdir()
                code = fault_injection.finish(folder / "run", settings, (at, how))
                assert code != 0, f"nothing happened at operation {at}"
                same += run_to_its_end(folder / "run", settings) == expected
                show(f"{verb} at each of {at} writes, flushes, renames, removals: {same} as if never", same == at)


def counted(folder: Path, settings: dict) -> int:
    """How many operations on files such a training makes."""
    folder.mkdir()
    fault_injection.finish(folder, settings, (0, "count"))
    return int((folder / "operations").read_text())


def run_to_its_end(folder: Path, settings: dict) -> dict | None:
    """What the training in that folder comes to, which is then removed."""
    folder.mkdir(exist_ok=True)
    code = fault_injection.finish(folder, settings)
    story = fault_injection.story(folder / "run") if code == 0 else None
    if story is None:
        print((folder / "errors.txt").read_text()[-1000:])
    shutil.rmtree(folder)
    return story


def show(line: str, good: bool) -> None:
    """A line that counts up on a terminal; one after another where there is none, if something is wrong."""
    print(f"\r{line}", end="" if good else "\n", flush=True)


if __name__ == "__main__":
    main()
    print()

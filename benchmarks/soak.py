"""Kill trainings and fine-tunings at random moments and at every write, and check that the resumed run is the same.

    python benchmarks/soak.py --kills 500

First, a real process is killed at random moments, several times a run, and the run is resumed to its end. Then
every single write, flush, rename and removal of a training, or `--operations` of them, is the last operation of its
process, or fails as on a full disk. Each run must end with the same weights, metrics and samples as one that was never
stopped, bit for bit. Each kind of fine-tuning is killed `--fine-tuning-kills` times at random moments and at as many
random operations.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import fault_injection
from conftest import make_text
from fault_injection import Work


def main() -> None:
    """Print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="kills of a training at random moments")
    parser.add_argument(
        "--operations", type=int, default=sys.maxsize, help="file operations at which a training is stopped [all]"
    )
    parser.add_argument("--fine-tuning-kills", type=int, default=10, help="the same of each kind of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fault_injection.make_bases(folder, make_text())
        training = fault_injection.training(fault_injection.SETTINGS | {"data": folder / "text.txt"})
        kill_at_moments("training", training, folder / "run", arguments.kills, rng)
        kill_at_operations("training", training, folder / "run", arguments.operations, rng)
        for kind in fault_injection.FINE_TUNINGS:
            work = fault_injection.fine_tuning(folder, kind)
            kill_at_moments(kind, work, folder / "run", arguments.fine_tuning_kills, rng)
            kill_at_operations(kind, work, folder / "run", arguments.fine_tuning_kills, rng)


def kill_at_moments(name: str, work: Work, folder: Path, most: int, rng: random.Random) -> None:
    """Kill a work at random moments, and print how many runs ended as one that was never stopped."""
    started = time.perf_counter()
    expected = finish_run(work, folder)
    seconds = time.perf_counter() - started
    kills, runs, same = 0, 0, 0
    while kills < most:
        folder.mkdir()
        kills, runs = kills + work.kill(folder, rng, seconds), runs + 1
        same += finish_run(work, folder) == expected
        print_progress(
            f"{name}: {kills} kills at random moments of {runs} runs, {same} as if never stopped", runs == same
        )
    print()


def kill_at_operations(name: str, work: Work, folder: Path, most: int, rng: random.Random) -> None:
    """Let each of the file operations of a work, or a random choice of them, be its last one, or fail."""
    expected = finish_run(work, folder)
    operations = count_operations(work, folder)
    for how, verb in (("kill", "killed"), ("fail", "failing")):
        chosen = rng.sample(range(1, operations + 1), min(most, operations))
        same = 0
        for number, at in enumerate(chosen, 1):
            folder.mkdir()
            code = work.finish(folder, (at, how))
            assert code != 0, f"nothing happened at operation {at}"
            same += finish_run(work, folder) == expected
            print_progress(
                f"{name}: {verb} at {number} of {operations} operations, {same} as if never stopped", same == number
            )
        print()


def count_operations(work: Work, folder: Path) -> int:
    """Return the number of file operations of a work."""
    folder.mkdir()
    work.finish(folder, (0, "count"))
    operations = int((folder / "operations").read_text())
    shutil.rmtree(folder)
    return operations


def finish_run(work: Work, folder: Path) -> dict:
    """Finish the work in a folder, remove the folder, and return the result."""
    folder.mkdir(exist_ok=True)
    code = work.finish(folder)
    if code != 0:
        sys.exit((folder / "errors.txt").read_text()[-1000:])
    story = fault_injection.story(folder / "run")
    shutil.rmtree(folder)
    return story


def print_progress(line: str, good: bool) -> None:
    """Print a line over the previous one; keep it if something is wrong."""
    print(f"\r{line}", end="" if good else "\n", flush=True)


if __name__ == "__main__":
    main()

"""Time a training with checkpoints and without, in turns.

    python benchmarks/checkpoint_cost.py --data input.txt

Both trainings have the lecture preset and evaluate every hundred steps. One of them writes no checkpoints. The
ratio is that of the whole times.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

import minigpt
from minigpt.training.callbacks import Journal


def time_training(data: str, out: Path, saves: bool) -> float:
    """Return the seconds of a training, with its evaluations."""
    keep = Journal.save_all if saves else lambda self, step, evaluated, weights, kept: None
    with patch.object(Journal, "save_all", keep):
        record = minigpt.train(data=data, out=out, max_iters=800, snapshots=0).record
    return record.training_seconds + record.evaluation_seconds


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        ratios = []
        for n in range(arguments.rounds):
            order = [True, False] if n % 2 else [False, True]
            times = {saves: time_training(arguments.data, Path(temporary) / f"{n}-{saves}", saves) for saves in order}
            ratios.append(times[True] / times[False])
        low, *_, high = sorted(ratios)
        print(f"with checkpoints {statistics.median(ratios):.3f} times as long as without ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()

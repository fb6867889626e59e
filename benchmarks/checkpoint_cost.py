"""Time a training with a checkpoint every hundred steps, and with two checkpoints in all, in turns.

    python benchmarks/checkpoint_cost.py --data input.txt

Two equal trainings of the lecture preset run in turn, without evaluations between the first and the last step. One
writes a checkpoint after every hundred steps. The ratio is that of the whole times, median of the rounds.
"""

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

from minigpt.config import Config
from minigpt.training.callbacks import Callback
from minigpt.training.train import train
from minigpt.training.training_state import TrainingState

STEPS, INTERVAL = 800, 100


class EverySteps(Callback):
    """Makes the next checkpoint due every hundred steps, or never."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def on_step_end(self, state: TrainingState) -> None:
        """Set the minutes between checkpoints for the step that follows."""
        is_due = self.enabled and state.step % INTERVAL == INTERVAL - 1
        state.config = dataclasses.replace(state.config, save_minutes=1e-9 if is_due else 1e9)


def time_training(data: str, out: Path, checkpoints: bool) -> float:
    """Return the seconds of a training, with its evaluations."""
    config = Config().override(max_iters=STEPS, eval_interval=STEPS, snapshots=0)
    info = train(config, data, out, callbacks=[EverySteps(checkpoints)]).info
    return info.training_seconds + info.evaluation_seconds


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
            times = {each: time_training(arguments.data, Path(temporary) / f"{n}-{each}", each) for each in order}
            ratios.append(times[True] / times[False])
        low, *_, high = sorted(ratios)
        print(f"with checkpoints {statistics.median(ratios):.3f} times as long as without ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()

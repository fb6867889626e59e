"""Peak memory of training by depth, precision and recomputed activations, each in a process of its own.

    python benchmarks/training_memory.py

A few steps at 16 windows of 256 tokens, 256 wide. What is shown is the peak of resident memory above what the
process held before the model was made.
"""

import argparse
import resource
import subprocess
import sys

import torch

from minigpt.config import Config
from minigpt.model import build
from minigpt.training.gradients import Gradients
from minigpt.training.optimizer import Optimizer

SHAPE = {"vocab_size": 65, "block_size": 256, "n_embd": 256, "n_head": 4, "batch_size": 16, "max_iters": 10}
DEPTHS = (4, 8, 16)


def peak() -> float:
    """The most that this process has held so far, in MB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n_layer: int, precision: str, checkpoint_activations: bool) -> None:
    """Make three steps and print the peak above the start, in MB."""
    config = Config().override(
        **SHAPE, n_layer=n_layer, precision=precision, checkpoint_activations=checkpoint_activations
    )
    idx = torch.zeros(16, 256, dtype=torch.int64)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # loads what it needs
    before = peak()
    gradients = Gradients(build(config.model).train(), config)
    optimizer = Optimizer(gradients.parameters, config.training, gradients.scaler)
    for step in range(3):
        gradients.add(idx, idx)
        optimizer.step(step)
    print(peak() - before)


def main() -> None:
    """Print a table, or one figure for the process that was started for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        n_layer, precision, recomputed = arguments.one
        measure(int(n_layer), precision, recomputed == "True")
        return
    print(f"| precision | activations | {' | '.join(f'{depth} blocks, MB' for depth in DEPTHS)} |\n{'| --- ' * 5}|")
    for precision in ("fp32", "bf16"):
        for recomputed in (False, True):
            peaks = [
                float(subprocess.check_output([sys.executable, __file__, "--one", str(L), precision, str(recomputed)]))
                for L in DEPTHS
            ]
            figures = " | ".join(f"{mb:,.0f}" for mb in peaks)
            print(f"| {precision} | {'recomputed' if recomputed else 'kept'} | {figures} |", flush=True)


if __name__ == "__main__":
    main()

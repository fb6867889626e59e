"""Measure the peak memory of training by depth, precision and recomputed activations.

    python benchmarks/training_memory.py

Each case runs a few steps in a process of its own, with 16 windows of 256 tokens and a 256-wide model. The peak is the
resident memory above that before the model was built.
"""

import argparse
import resource
import subprocess
import sys

import torch
from steps import FixedBatch, make_step

from minigpt.config import Config
from minigpt.model import build

SHAPE = {"vocab_size": 65, "block_size": 256, "n_embd": 256, "n_head": 4, "batch_size": 16, "max_iters": 10}
DEPTHS = (4, 8, 16)


def read_peak_memory() -> float:
    """Return the peak of this process's resident memory in MB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n_layer: int, precision: str, checkpoint_activations: bool) -> None:
    """Run three steps and print the peak above the start, in MB."""
    config = Config().override(
        **SHAPE, n_layer=n_layer, precision=precision, checkpoint_activations=checkpoint_activations
    )
    idx = torch.zeros(16, 256, dtype=torch.int64)
    before = read_peak_memory()
    step = make_step(build(config.model).train(), config, FixedBatch(idx, idx))
    for _ in range(3):
        step()
    print(read_peak_memory() - before)


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

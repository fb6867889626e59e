"""Does a step's cost grow as its work does? Time a step as T, C and L grow, against its matrix products alone.

    python benchmarks/step_scaling.py

The products are PyTorch's own, in float32 (`torch.mm`); ours go through oneDNN, so the ratio may fall below 1.
"""

import argparse

import torch
from peers import SEED_SIZE, Shape, floor
from side_by_side import alternate, faster_threads
from training_step import ours

GROWING = {
    "T": [Shape(16, T, 64, 4, 4) for T in (16, 32, 64, 128, 256)],
    "C": [Shape(16, 32, C, 4, 4) for C in (32, 64, 128, 256, 512)],
    "L": [Shape(16, 32, 64, 4, L) for L in (1, 2, 4, 8, 16)],
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ids = torch.randint(SEED_SIZE.V, (100_000,), generator=torch.Generator().manual_seed(0))
    print(
        "| grows | (B, T, C, H, L) | ms a step | ms of products | step over products |\n| --- | --- | --- | --- | --- |"
    )
    for name, shapes in GROWING.items():
        for shape in shapes:
            sides = {"products": faster_threads(floor(shape)), "ours": faster_threads(ours(shape, ids))}
            timings = alternate(sides, arguments.rounds, seconds=0.3)
            step, products = timings["ours"], timings["products"]
            times = f"{step.seconds * 1e3:.2f} | {products.seconds * 1e3:.2f}"
            print(f"| {name} | {shape} | {times} | {step} |", flush=True)


if __name__ == "__main__":
    main()

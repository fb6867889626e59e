"""Time a training step against its matrix products alone, for growing block_size, width and depth.

    python benchmarks/step_scaling.py

The products are PyTorch's, in float32 (`torch.mm`). Our step multiplies with oneDNN, so the ratio can be below 1.
"""

import argparse

import torch
from peers import LECTURE_SHAPE, Shape, make_matrix_products
from side_by_side import choose_threads, time_in_turns
from training_step import make_our_step

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
    ids = torch.randint(LECTURE_SHAPE.V, (100_000,), generator=torch.Generator().manual_seed(0))
    print("| grows | (B, T, C, H, L) | step, ms | products, ms | step over products |\n| --- | --- | --- | --- | --- |")
    for name, shapes in GROWING.items():
        for shape in shapes:
            sides = {
                "products": choose_threads(make_matrix_products(shape)),
                "ours": choose_threads(make_our_step(shape, ids)),
            }
            timings = time_in_turns(sides, arguments.rounds, seconds=0.3)
            step, products = timings["ours"], timings["products"]
            times = f"{step.seconds * 1e3:.2f} | {products.seconds * 1e3:.2f}"
            print(f"| {name} | {shape} | {times} | {step} |", flush=True)


if __name__ == "__main__":
    main()

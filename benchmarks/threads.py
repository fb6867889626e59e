"""Time a training step on one thread and on all threads, by the number of activations.

    python benchmarks/threads.py

Both run in turns in one process. The table has medians.
"""

import statistics
import time

import torch

from minigpt.config import Config
from minigpt.model import build

SHAPES = [(32, 16, 32), (64, 16, 32), (128, 12, 64), (64, 32, 64), (128, 16, 128)]  # C, B, T
ROUNDS, STEPS = 8, 6


def main() -> None:
    """Print the table."""
    most = torch.get_num_threads()
    print(f"| C, B, T | B·T·C | one thread, ms | {most} threads, ms | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for C, B, T in SHAPES:
        model = build(Config().override(n_embd=C, block_size=T).model)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        idx = torch.randint(65, (B, T))
        seconds: dict[int, list[float]] = {1: [], most: []}
        for threads in [1, most] * ROUNDS:
            torch.set_num_threads(threads)
            for step in range(STEPS):
                start = time.perf_counter()
                _, loss = model(idx, idx)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if step >= 2:  # the first ones after a change of threads are slower
                    seconds[threads].append(time.perf_counter() - start)
        one, many = (statistics.median(seconds[threads]) * 1000 for threads in (1, most))
        print(f"| {C}, {B}, {T} | {B * T * C:,} | {one:.1f} | {many:.1f} | {one / many:.2f} |")


if __name__ == "__main__":
    main()

"""When torch.compile pays: what compiling takes, and what it takes off each step.

    python benchmarks/torch_compile.py

At the three shapes of benchmarks/training_step.py, in turn with the step as it is without, on two threads.
"""

import dataclasses
import time

import torch
from side_by_side import Side, alternate
from training_step import SHAPES, ours


def main() -> None:
    """Print a table."""
    ids = torch.randint(65, (100_000,), generator=torch.Generator().manual_seed(0))
    print("| (B, T, C, H, L) | compiling, s | ms a step, compiled | ms without | pays after so many steps |")
    print("| --- " * 5 + "|")
    for shape in SHAPES:
        plain, compiled = ours(shape, ids), ours(dataclasses.replace(shape), ids, compile=True)
        began = time.perf_counter()
        compiled()
        spent = time.perf_counter() - began
        timings = alternate({"plain": Side(plain, 2), "compiled": Side(compiled, 2)}, rounds=7, seconds=0.5)
        ms = {name: timing.seconds * 1e3 for name, timing in timings.items()}
        gain = ms["plain"] - ms["compiled"]
        steps = f"{spent / gain * 1e3:,.0f}" if gain > 0 else "never"
        print(f"| {shape} | {spent:.0f} | {ms['compiled']:.2f} | {ms['plain']:.2f} | {steps} |", flush=True)


if __name__ == "__main__":
    main()

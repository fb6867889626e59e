"""Measure after how many steps torch.compile pays off: the time to compile, and the time it saves on each step.

    python benchmarks/torch_compile.py

The shapes are those of benchmarks/training_step.py. The compiled step and the ordinary step run in turns on two
threads.
"""

import dataclasses
import time

import torch
from side_by_side import Side, time_in_turns
from training_step import SHAPES, make_our_step


def main() -> None:
    """Print a table."""
    ids = torch.randint(65, (100_000,), generator=torch.Generator().manual_seed(0))
    print("| (B, T, C, H, L) | compiling, s | ms a step, compiled | ms without | steps until it pays off |")
    print("| --- " * 5 + "|")
    for shape in SHAPES:
        plain, compiled = make_our_step(shape, ids), make_our_step(dataclasses.replace(shape), ids, compile=True)
        start = time.perf_counter()
        compiled()
        spent = time.perf_counter() - start
        timings = time_in_turns({"plain": Side(plain, 2), "compiled": Side(compiled, 2)}, rounds=7, seconds=0.5)
        ms = {name: timing.seconds * 1e3 for name, timing in timings.items()}
        gain = ms["plain"] - ms["compiled"]
        steps = f"{spent / gain * 1e3:,.0f}" if gain > 0 else "never"
        print(f"| {shape} | {spent:.0f} | {ms['compiled']:.2f} | {ms['plain']:.2f} | {steps} |", flush=True)


if __name__ == "__main__":
    main()

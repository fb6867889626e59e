"""Measure which operations take the time of a training step, for the lecture's code and for minigpt.

    python benchmarks/profile_step.py

PyTorch's profiler on one thread, and minigpt without the compiled loops, which are one operation for the profiler. It
slows everything a little, so the table has shares, not times.
"""

import re

import torch
from peers import LECTURE_SHAPE, Step, make_lecture_step
from training_step import make_our_step

STEPS = 100
KINDS = {  # an operation is of the first kind whose pattern is in its name
    "matrix products": r"mm$|linear_pointwise|bmm|baddbmm|addmm",
    "fused attention": r"scaled_dot_product|flash",
    "softmax and loss": r"softmax|nll|cross_entropy|masked_fill|tril",
    "layer norm": r"layer_norm",
    "copies": r"copy|cat|clone|contiguous|stack|index|embedding|slice|select_backward",
    "sums and elementwise operations": r"add|mul|div|sum|relu|threshold|clamp|sub",
    "optimizer": r"adamw|AdamW|Optimizer|zero_|foreach|lerp|sqrt|addc",
    "memory allocation": r"empty|zeros|new_|fill|resize",
}


def compute_shares(step: Step) -> dict[str, float]:
    """Return the share of each kind of operation in the time of a step."""
    for _ in range(20):
        step()
    with torch.profiler.profile() as profile:
        for _ in range(STEPS):
            step()
    times = dict.fromkeys([*KINDS, "Python, dispatch, autograd"], 0.0)
    for event in profile.key_averages():
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, event.key)), list(times)[-1])
        times[kind] += event.self_cpu_time_total
    return {kind: spent / sum(times.values()) for kind, spent in times.items()}


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    ids = torch.randint(65, (100_000,), generator=torch.Generator().manual_seed(0))
    columns = {
        "the lecture's": compute_shares(make_lecture_step(LECTURE_SHAPE, ids)),
        "ours": compute_shares(make_our_step(LECTURE_SHAPE, ids, compiled_loops="off")),
    }
    print(f"| | {' | '.join(columns)} |\n| --- | --- | --- |")
    for kind in [*KINDS, "Python, dispatch, autograd"]:
        print(f"| {kind} | {' | '.join(f'{column[kind]:.0%}' for column in columns.values())} |")


if __name__ == "__main__":
    main()

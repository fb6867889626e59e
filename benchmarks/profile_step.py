"""Where the time of a training step goes, by kind of work: the lecture's step, and ours, at the mission's size.

    python benchmarks/profile_step.py

On one thread, by PyTorch's profiler, which makes everything a little slower; so read the shares, not the times.
"""

import re

import torch
from peers import SEED_SIZE, Step, lecture
from training_step import ours

STEPS = 100
KINDS = {  # the first pattern found in an operation's name tells its kind
    "matrix products": r"mm$|linear_pointwise|bmm|baddbmm|addmm",
    "attention, as one operation": r"scaled_dot_product|flash",
    "softmax and loss": r"softmax|nll|cross_entropy|masked_fill|tril",
    "layer norm": r"layer_norm",
    "copies": r"copy|cat|clone|contiguous|stack|index|embedding|slice|select_backward",
    "sums and elementwise": r"add|mul|div|sum|relu|threshold|clamp|sub",
    "optimizer": r"adamw|AdamW|Optimizer|zero_|foreach|lerp|sqrt|addc",
    "asking for memory": r"empty|zeros|new_|fill|resize",
}


def shares(step: Step) -> dict[str, float]:
    """The share of each kind in a step's time."""
    for _ in range(20):
        step()
    with torch.profiler.profile() as profile:
        for _ in range(STEPS):
            step()
    times = dict.fromkeys([*KINDS, "the way there: Python, dispatch, autograd"], 0.0)
    for event in profile.key_averages():
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, event.key)), list(times)[-1])
        times[kind] += event.self_cpu_time_total
    return {kind: spent / sum(times.values()) for kind, spent in times.items()}


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    ids = torch.randint(65, (100_000,), generator=torch.Generator().manual_seed(0))
    columns = {"the lecture's": shares(lecture(SEED_SIZE, ids)), "ours": shares(ours(SEED_SIZE, ids))}
    print(f"| | {' | '.join(columns)} |\n| --- | --- | --- |")
    for kind in [*KINDS, "the way there: Python, dispatch, autograd"]:
        print(f"| {kind} | {' | '.join(f'{column[kind]:.0%}' for column in columns.values())} |")


if __name__ == "__main__":
    main()

"""Time a step of Muon over the matrices of the blocks: ours against torch.optim.Muon.

    python benchmarks/muon.py

Ours stacks matrices of the same shape; torch.optim.Muon takes one after another. The shapes are those of the
presets of docs/record.md. Ratios are to ours in the same round: the median, and the range in parentheses.
"""

import argparse

import torch
from side_by_side import Side, time_in_turns
from torch import nn

from minigpt.config import Config
from minigpt.model import build
from minigpt.training.flat_parameters import flatten_parameters
from minigpt.training.muon import Muon

PRESETS = ("cpu-2min", "cpu-10min", "cpu-60min")


def main() -> None:
    """Print a row for each shape and optimizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print("| preset | n_embd, n_layer | Muon | ms | time over ours |\n| --- | --- | --- | --- | --- |")
    for preset in PRESETS:
        config = Config.from_preset(preset)
        rate, decay = config.training.muon_learning_rate, config.training.weight_decay
        stacks = [p for p in flatten_parameters(build(config.model), stack=True) if p.dim() == 3]
        alone = [nn.Parameter(matrix.detach().clone()) for stack in stacks for matrix in stack]
        for parameter in [*stacks, *alone]:
            parameter.grad = torch.randn_like(parameter)
        ours, theirs = Muon(stacks, rate, decay), torch.optim.Muon(alone, lr=rate, weight_decay=decay)
        sides = {"ours": Side(ours.step, threads), "torch.optim.Muon": Side(theirs.step, threads)}
        for name, timing in time_in_turns(sides, arguments.rounds).items():
            shape = f"{config.model.n_embd}, {config.model.n_layer}"
            print(f"| {preset} | {shape} | {name} | {1000 * timing.seconds:.1f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

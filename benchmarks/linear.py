"""Time a linear layer, forward and backward, by MKL and by oneDNN.

    python benchmarks/linear.py

MKL is what `nn.Linear` uses; minigpt/kernels/onednn_linear.py is oneDNN. Both take turns. The ratio is oneDNN's time
over MKL's in the same round: the median, and the range in parentheses.
"""

import argparse
from collections.abc import Callable

import torch
from processor import describe_processor
from side_by_side import Side, time_in_turns
from torch import Tensor, nn

from minigpt.kernels.onednn_linear import OneDNNLinear

SHAPES = [  # (rows, inputs, outputs) of layers that are 64, 96, 128, 192, 384 and 768 wide
    (512, 64, 64),
    (512, 64, 256),
    (512, 256, 64),
    (2048, 96, 384),
    (768, 128, 512),
    (768, 512, 128),
    (2048, 192, 768),
    (2048, 384, 1536),
    (2048, 1536, 384),
    (512, 768, 3072),
]


def make_step(layer: nn.Linear, x: Tensor, gradient: Tensor) -> Callable[[], None]:
    """Return a function that computes the layer and all its gradients."""

    def step() -> None:
        x.grad = layer.weight.grad = None
        layer(x).backward(gradient)

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{describe_processor()}, {arguments.threads} threads\n")
    print("| rows, inputs, outputs | MKL, GFLOP/s | oneDNN, GFLOP/s | time over MKL |\n| --- | --- | --- | --- |")
    for rows, inputs, outputs in SHAPES:
        x, gradient = torch.randn(rows, inputs, requires_grad=True), torch.randn(rows, outputs)
        layers = {kind.__name__: kind(inputs, outputs, bias=False) for kind in (nn.Linear, OneDNNLinear)}
        sides = {name: Side(make_step(layer, x, gradient), arguments.threads) for name, layer in layers.items()}
        timings = time_in_turns(sides, arguments.rounds, seconds=0.1)
        mkl, onednn = (f"{6e-9 * rows * inputs * outputs / timing.seconds:.0f}" for timing in timings.values())
        print(f"| {rows}, {inputs}, {outputs} | {mkl} | {onednn} | {timings['OneDNNLinear']} |", flush=True)


if __name__ == "__main__":
    main()

"""Fit the formula for the loss forecast of `minigpt train --forecast`: train small models and fit five numbers.

    python benchmarks/forecast.py --data input.txt

The formula gives the loss divided by the entropy of the text's pairs of characters: A / N^a + B / D^b + W / T, for
N weights in matrices, D characters read and T characters of context. Prints the loss of each model, the five
numbers, and the errors of the formula at the measure_points of the fit.
"""

import argparse
import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import minigpt
from minigpt.data.corpus import find_corpus
from minigpt.training.planning.forecast import compute_bigram_entropy

GRID = [  # n_embd, n_head, n_layer, block_size, batch_size, max_iters
    (16, 2, 2, 16, 16, 6000),
    (32, 4, 3, 8, 32, 6000),
    (64, 4, 4, 32, 16, 6000),
    (64, 4, 2, 64, 16, 4000),
    (128, 4, 4, 64, 12, 3000),
    (128, 4, 6, 128, 8, 1500),
    (256, 4, 4, 128, 8, 800),
]
NAMES = ("n_embd", "n_head", "n_layer", "block_size", "batch_size", "max_iters")
FIRST = 500  # the fit leaves out earlier steps


def measure_points(data: str | None) -> tuple[Tensor, Tensor]:
    """Train the models; return N, D and T of every evaluation, (M, 3), and its loss over the entropy, (M,)."""
    shapes, losses, entropy = [], [], None
    for row in GRID:
        settings = dict(zip(NAMES, row, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            run = minigpt.train(data=data, out=Path(folder) / "run", eval_interval=250, snapshots=0, **settings)
        if entropy is None:
            ids = torch.tensor(run.tokenizer.encode(find_corpus(data).text))
            entropy = compute_bigram_entropy(ids[: int(0.9 * len(ids))], run.tokenizer.vocab_size)
        N = 12 * run.config.model.n_layer * run.config.model.n_embd**2
        N += 2 * run.tokenizer.vocab_size * run.config.model.n_embd
        for metrics in run.metrics:
            if metrics.step >= FIRST:
                shapes.append((N, metrics.characters, run.config.model.block_size))
                losses.append(metrics.validation_loss / entropy)
        print(f"| {' | '.join(map(str, row))} | {losses[-1] * entropy:.4f} |", flush=True)
    return torch.tensor(shapes, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64)


def compute_loss_ratios(p: Tensor, shapes: Tensor) -> Tensor:
    """Return the formula at `shapes` (M, 3) as (M,); p has the logarithms of A, a, B, b and W."""
    A, a, B, b, W = p.exp()
    N, D, T = shapes.T
    return A / N**a + B / D**b + W / T


def main() -> None:
    """Train, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    arguments = parser.parse_args()
    print(f"| {' | '.join(NAMES)} | loss |\n{'| --- ' * 7}|")
    shapes, losses = measure_points(arguments.data)
    p = torch.tensor([math.log(x) for x in (2.0, 0.3, 3.0, 0.1, 0.1)], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([p], max_iter=3000, line_search_fn="strong_wolfe")

    def error() -> Tensor:
        optimizer.zero_grad()
        mean = (compute_loss_ratios(p, shapes) / losses - 1).square().mean()
        mean.backward()
        return mean

    optimizer.step(error)
    print("\n" + ", ".join(f"{name} = {x:.4f}" for name, x in zip("AaBbW", p.exp().tolist(), strict=True)))
    off = (compute_loss_ratios(p, shapes) / losses - 1).abs().detach()
    print(
        f"error {off.square().mean().sqrt():.1%} (rms), at most {off.max():.1%}, {(off < 0.08).double().mean():.0%} of"
    )
    print(f"{len(off)} measure_points by less than 8%")


if __name__ == "__main__":
    main()

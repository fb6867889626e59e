"""Measure what each idea of the record's recipe is worth: train it without one idea at a time.

    python benchmarks/record_ablation.py --data input.txt --track 2min --seeds 3

All trainings have the same budget of time. First, a step of each is timed on all cores, in turns. This gives the
number of steps that fill the minutes of the track. Then each training runs on one core, as in benchmarks/record.py,
for that number of steps. Prints a Markdown table.
"""

import contextlib
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from unittest.mock import patch

import torch
from record import TextSplits, format_spread, parse_arguments, prepare_training, train_and_measure
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import Config
from minigpt.kernels.elementwise import FastRMSNorm
from minigpt.model.modern import Modern, zero_output_layers

ROUNDS = 6  # rounds of timing
Change = Callable[[Config], contextlib.AbstractContextManager[Config]]


def replace_name(name: str, by: object) -> Change:
    """Replace a name in model/modern.py."""

    @contextlib.contextmanager
    def change(config: Config) -> Iterator[Config]:
        with patch(f"minigpt.model.modern.{name}", by):
            yield config

    return change


def change_settings(**other: Any) -> Change:
    """Change settings."""
    return lambda config: contextlib.nullcontext(config.override(**other))


class NoRotary(nn.Module):
    """No positions: attention knows them by the causal mask only."""

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys unchanged."""
        return q, k


class NoTokenShift(nn.Module):
    """No token shift."""

    def forward(self, x: Tensor, weight: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return x unchanged."""
        return x


class NoQKNorm(FastRMSNorm):
    """RMS norm of the stream (B, T, C) and none of queries and keys (B, T, H, D)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return super().forward(x) if x.dim() == 3 else x


class LayerNorm(nn.Module):
    """Layer norm without gain and bias."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return F.layer_norm(x, x.shape[-1:])


def initialize_randomly(model: Modern) -> None:
    """Initialize with small random weights instead of zeros."""
    zero_output_layers(model)
    for parameter in model.parameters():
        if parameter.dim() == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)


NOTHING = "nothing"
IDEAS: dict[str, Change] = {
    NOTHING: change_settings(),
    "token shift": replace_name("TokenShift", NoTokenShift),
    "QK-norm": replace_name("RMSNorm", NoQKNorm),
    "rotary positions": replace_name("Rotary", NoRotary),
    "squared ReLU": replace_name("SquaredReLU", nn.ReLU),
    "RMS norm (layer norm instead)": replace_name("RMSNorm", LayerNorm),
    "zero initialization": replace_name("zero_output_layers", initialize_randomly),
    "Muon (AdamW instead)": change_settings(optimizer="adamw"),
    "the trapezoid schedule (cosine instead)": change_settings(schedule="cosine"),
    "epochs (windows drawn at random instead)": change_settings(order="random"),
}


def count_steps_without_each(splits: TextSplits, recipe: Config) -> dict[str, int]:
    """Return the number of steps that fill the budget of time, without each idea."""
    steps: dict[str, list[int]] = {name: [] for name in IDEAS}
    for _ in range(ROUNDS):
        for name, change in IDEAS.items():
            with change(recipe) as changed:
                config, *_ = prepare_training(splits, changed)
            steps[name].append(config.training.max_iters)
    baseline = statistics.median(steps[NOTHING])
    ratios = {name: [one / whole for one, whole in zip(steps[name], steps[NOTHING], strict=True)] for name in IDEAS}
    return {name: round(baseline * statistics.median(ratios[name])) for name in IDEAS}


def train_without(name: str, splits: TextSplits, config: Config) -> float:
    """Train without an idea, on one core, and return the exact loss."""
    torch.set_num_threads(1)
    with IDEAS[name](config) as changed:
        return train_and_measure(splits, changed, name).loss


def main() -> None:
    """Print the table."""
    splits, track, seeds = parse_arguments(__doc__)
    recipe = Config.from_preset(f"cpu-{track}")
    steps = count_steps_without_each(splits, recipe)
    print("| without | steps | exact loss | worth |\n| --- | --- | --- | --- |", flush=True)
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        trainings = {
            name: [
                pool.submit(train_without, name, splits, recipe.override(seed=seed, max_iters=steps[name]))
                for seed in range(1, seeds + 1)
            ]
            for name in IDEAS
        }
        whole = statistics.mean(training.result() for training in trainings[NOTHING])
        for name in IDEAS:
            losses = [training.result() for training in trainings[name]]
            worth = "" if name == NOTHING else f"{statistics.mean(losses) - whole:+z.4f}"
            print(f"| {name} | {steps[name]:,} | {format_spread(losses)} | {worth} |", flush=True)


if __name__ == "__main__":
    main()

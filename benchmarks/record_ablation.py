"""What each idea of the record is worth: its recipe trained with one of them taken away at a time.

    python benchmarks/record_ablation.py --data input.txt --track 2min --seeds 3

All have the same time. To begin with, a step of each is timed on all cores, in turns, since the machine is faster at
times; so it is known how many fill the track's minutes. Those are then trained as benchmarks/record.py trains, but one
training on each core, whatever time that takes. Prints a Markdown table.
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
from record import Ground, asked, begun, spread, trained
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import Config
from minigpt.kernels.elementwise import FastRMSNorm
from minigpt.model.modern import Modern, init_silent

ROUNDS = 6  # of timing
Change = Callable[[Config], contextlib.AbstractContextManager[Config]]


def replaced(name: str, by: object) -> Change:
    """With another thing of that name in model/modern.py."""

    @contextlib.contextmanager
    def change(config: Config) -> Iterator[Config]:
        with patch(f"minigpt.model.modern.{name}", by):
            yield config

    return change


def settings(**other: Any) -> Change:
    """With other settings."""
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


def drawn(model: Modern) -> None:
    """Small weights in the place of zeros."""
    init_silent(model)
    for parameter in model.parameters():
        if parameter.dim() == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)


NOTHING = "nothing"
IDEAS: dict[str, Change] = {
    NOTHING: settings(),
    "token shift": replaced("TokenShift", NoTokenShift),
    "QK-norm": replaced("RMSNorm", NoQKNorm),
    "rotary positions": replaced("Rotary", NoRotary),
    "squared ReLU": replaced("SquaredReLU", nn.ReLU),
    "RMS norm (layer norm instead)": replaced("RMSNorm", LayerNorm),
    "zero initialisation": replaced("init_silent", drawn),
    "Muon (AdamW instead)": settings(optimizer="adamw"),
    "the trapezoid (cosine instead)": settings(schedule="cosine"),
    "epochs (windows drawn at random instead)": settings(order="random"),
}


def steps_of_each(ground: Ground, recipe: Config) -> dict[str, int]:
    """How many steps fill the recipe's minutes with each idea taken away."""
    steps: dict[str, list[int]] = {name: [] for name in IDEAS}
    for _ in range(ROUNDS):
        for name, change in IDEAS.items():
            with change(recipe) as changed:
                config, *_ = begun(ground, changed)
            steps[name].append(config.training.max_iters)
    usual = statistics.median(steps[NOTHING])
    ratios = {name: [one / whole for one, whole in zip(steps[name], steps[NOTHING], strict=True)] for name in IDEAS}
    return {name: round(usual * statistics.median(ratios[name])) for name in IDEAS}


def loss_without(name: str, ground: Ground, config: Config) -> float:
    """The exact loss of that training without that idea, on one core."""
    torch.set_num_threads(1)
    with IDEAS[name](config) as changed:
        return trained(ground, changed, name).loss


def main() -> None:
    """Print the table."""
    ground, track, seeds = asked(__doc__)
    recipe = Config.from_preset(f"cpu-{track}")
    steps = steps_of_each(ground, recipe)
    print("| without | steps | exact loss | worth |\n| --- | --- | --- | --- |", flush=True)
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        trainings = {
            name: [
                pool.submit(loss_without, name, ground, recipe.override(seed=seed, max_iters=steps[name]))
                for seed in range(1, seeds + 1)
            ]
            for name in IDEAS
        }
        whole = statistics.mean(training.result() for training in trainings[NOTHING])
        for name in IDEAS:
            losses = [training.result() for training in trainings[name]]
            worth = "" if name == NOTHING else f"{statistics.mean(losses) - whole:+.4f}"
            print(f"| {name} | {steps[name]:,} | {spread(losses)} | {worth} |", flush=True)


if __name__ == "__main__":
    main()

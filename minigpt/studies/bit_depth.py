"""How few bits a trained matrix can do with: the loss and the text at 32, 16, 8, 4, 3 and 2 bits a weight."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigpt.errors import ConfigError
from minigpt.finetuning.target_layers import find_linear_layers
from minigpt.model.quantization import BLOCK, dequantize_int8, normal_levels, quantize_int8, quantize_to_levels
from minigpt.runs.run import Run
from minigpt.system.plotting import create_figure, replace_undrawable, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTHS = (32, 16, 8, 4, 3, 2)
WRITTEN = 120  # tokens


@dataclass(frozen=True)
class Depth:
    """The model at one depth: its exact loss in nats, and what it writes after the prompt, always from one seed."""

    bits: int
    loss: float
    text: str


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """A matrix as so many bits hold it: float32, bfloat16, int8 with a scale a row, or normal levels in blocks."""
    if bits == 32:
        return weight
    if bits == 16:
        return weight.bfloat16().float()
    if bits == 8:
        return dequantize_int8(*quantize_int8(weight))
    numbers, absmax = quantize_to_levels(weight, bits)
    values = normal_levels(bits)[numbers.int()] * absmax[:, None]  # (blocks, BLOCK)
    assert values.shape[1] == BLOCK
    return values.flatten()[: weight.numel()].view_as(weight)


def measure_bit_depths(
    run: Run, prompt: str = "", data: str | Path | None = None, say: Callable[[str], None] = lambda line: None
) -> list[Depth]:
    """The run's model at each depth, its blocks' matrices rounded, measured as `minigpt eval` does.

    Raises ConfigError for a model without blocks, and DataError and FileError as `Run.evaluate` does.
    """
    paths = [path for path in find_linear_layers(run.model) if path.startswith("blocks")]
    if not paths or run.config.model.quantization != "none":
        raise ConfigError("the study needs a transformer whose matrices are in full precision: take another run")
    found = []
    for depth in DEPTHS:
        model = copy.deepcopy(run.model)
        with torch.no_grad():
            for path in paths:
                weight = model.get_parameter(f"{path}.weight")
                weight.copy_(round_weight(weight, depth))
        rough = Run(run.path, run.config, run.tokenizer, model, run.record, run.metrics)
        text = rough.generate(prompt, max_new_tokens=WRITTEN, seed=run.config.training.seed)
        found.append(Depth(depth, rough.evaluate(data).loss, text))
        say(f"{depth:>2} bits: {found[-1].loss:.4f}")
    return found


def table(depths: list[Depth]) -> str:
    """The depths as a Markdown table."""
    rows = [f"| {d.bits} | {d.loss:.4f} | {d.loss - depths[0].loss:+.4f} | {d.text!r} |" for d in depths]
    return "\n".join(["| bits | loss | risen | text |", "| --- | --- | --- | --- |", *rows])


def draw(depths: list[Depth], title: str) -> "Figure":
    """The loss by depth, and what was written at each."""
    figure = create_figure(11, 5)
    axes = figure.subplots()
    places = range(len(depths))
    axes.plot(places, [d.loss for d in depths], marker="o", color="#1f77b4")
    axes.set_xticks(places, [f"{d.bits}" for d in depths])
    axes.set_xlabel("bits a weight")
    axes.set_ylabel("exact loss, nats")
    axes.set_title(title, parse_math=False)
    lines = [f"{d.bits:>2}  {replace_undrawable(d.text)[:90]}" for d in depths]
    figure.supxlabel("\n".join(lines), family="monospace", size=9, ha="left", x=0.02, parse_math=False)
    return figure


def write(depths: list[Depth], run: Run, out: Path) -> None:
    """Write the picture."""
    write_png(out, draw(depths, f"{run.path.name}: how many bits do its matrices need?"))

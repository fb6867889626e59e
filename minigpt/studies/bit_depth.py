"""How few bits a trained matrix needs: the loss and a text at 32, 16, 8, 4, 3 and 2 bits per weight."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigpt.config import DataPath
from minigpt.errors import ConfigError
from minigpt.finetuning.target_layers import find_linear_layers
from minigpt.model.loss import MAX_EVALUATED_TOKENS
from minigpt.model.nf4 import BLOCK, get_levels, quantize_to_levels
from minigpt.model.quantization import dequantize_int8, quantize_int8
from minigpt.runs.run import Run
from minigpt.system.plotting import create_figure, cut_to_width, replace_undrawable, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTHS = (32, 16, 8, 4, 3, 2)
SAMPLE_TOKENS = 120


@dataclass(frozen=True)
class Depth:
    """The model with its matrices rounded to a number of bits.

    Attributes:
        bits: per weight.
        loss: exact loss in nats.
        text: what the model writes after the prompt, always with the same seed.
    """

    bits: int
    loss: float
    text: str


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """Round a matrix to a number of bits.

    Args:
        weight: a float32 matrix.
        bits: 32 (no change), 16 (bfloat16), 8 (int8 with a scale for each row), or fewer (levels of a normal
            distribution in blocks, as NF4 has).

    Returns:
        A float32 matrix of the same shape.
    """
    if bits == 32:
        return weight
    if bits == 16:
        return weight.bfloat16().float()
    if bits == 8:
        return dequantize_int8(*quantize_int8(weight))
    numbers, absmax = quantize_to_levels(weight, bits)
    values = get_levels(bits)[numbers.int()] * absmax[:, None]  # (blocks, BLOCK)
    assert values.shape[1] == BLOCK
    return values.flatten()[: weight.numel()].view_as(weight)


def measure_bit_depths(
    run: Run, prompt: str = "", data: DataPath = None, say: Callable[[str], None] = lambda line: None
) -> list[Depth]:
    """Measure a run's model with its blocks' matrices rounded to each of DEPTHS bits.

    Args:
        run: the run, which is not changed.
        prompt: the start of the texts.
        data: the text to measure the loss on. Default: the run's validation split.
        say: receives a line of progress for each depth.

    Raises:
        ConfigError: the model has no blocks, or is quantized.
        DataError: the text cannot be used.
        FileError: the text cannot be read.
    """
    paths = [path for path in find_linear_layers(run.model) if path.startswith("blocks")]
    if not paths or run.config.model.quantization != "none":
        raise ConfigError("the study needs a transformer in full precision: take another run")
    found = []
    for depth in DEPTHS:
        model = copy.deepcopy(run.model)
        with torch.no_grad():
            for path in paths:
                weight = model.get_parameter(f"{path}.weight")
                weight.copy_(round_weight(weight, depth))
        rounded = Run(run.path, run.config, run.tokenizer, model, run.info, run.metrics)
        text = rounded.generate(prompt, max_new_tokens=SAMPLE_TOKENS, seed=run.config.training.seed)
        loss = rounded.evaluate(data, max_predictions=MAX_EVALUATED_TOKENS).loss
        found.append(Depth(depth, loss, text))
        say(f"{depth:>2} bits: {found[-1].loss:.4f}")
    return found


def format_table(depths: list[Depth]) -> str:
    """Return the depths as a Markdown table, and below it the texts."""
    rows = [f"| {d.bits} | {d.loss:.4f} | {d.loss - depths[0].loss:+z.4f} |" for d in depths]
    texts = [f"\n{d.bits} bits:\n\n{d.text}" for d in depths]
    return "\n".join(["| bits | loss | change |", "| --- | --- | --- |", *rows, *texts])


def _draw_bit_depths(depths: list[Depth], title: str) -> "Figure":
    """Draw the loss by bits per weight, with the texts below."""
    figure = create_figure(11, 5)
    axes = figure.subplots()
    places = range(len(depths))
    axes.plot(places, [d.loss for d in depths], marker="o", color="#1f77b4")
    axes.set_xticks(places, [f"{d.bits}" for d in depths])
    axes.set_xlabel("bits per weight")
    axes.set_ylabel("exact loss, nats")
    axes.set_title(title, parse_math=False)
    lines = [f"{d.bits:>2}  {cut_to_width(replace_undrawable(d.text), 90)}" for d in depths]
    figure.supxlabel("\n".join(lines), family="monospace", size=9, ha="left", x=0.02, parse_math=False)
    return figure


def write_picture(depths: list[Depth], run: Run, out: Path) -> None:
    """Write the picture to a file."""
    write_png(out, _draw_bit_depths(depths, f"{run.path.name}: loss by bits per weight"))

"""The view `temperature`: how temperature changes the distribution of the next token."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigpt.config import SamplingConfig
from minigpt.model import LanguageModel
from minigpt.studies.next_token import NextTokenDistribution, compute_entropies, compute_next_logits
from minigpt.system.plotting import create_figure, replace_undrawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPERATURES = (0.5, 1.0, 1.5)
TOP = 12  # most likely tokens in the picture


def compute_next_distributions(model: LanguageModel, idx: Tensor) -> Tensor:
    """Compute the probabilities of the token after the ids (T,) at each of TEMPERATURES: (3, V)."""
    logits = compute_next_logits(model, idx)  # (V,)
    configs = (SamplingConfig(temperature=temperature) for temperature in TEMPERATURES)
    return torch.stack([NextTokenDistribution.from_logits(logits, config).filtered for config in configs])


def draw_temperature(distributions: Tensor, tokens: list[str], text: str, unit: str = "character") -> "Figure":
    """Draw the most likely tokens after the text, with their probabilities (3, V) side by side."""
    top = distributions[TEMPERATURES.index(1.0)].topk(min(TOP, len(tokens))).indices.tolist()
    figure = create_figure(10, 5)
    axes = figure.subplots()
    for i, (temperature, row, entropy) in enumerate(
        zip(TEMPERATURES, distributions, compute_entropies(distributions), strict=True)
    ):
        places = [place + 0.27 * (i - 1) for place in range(len(top))]
        label = f"temperature {temperature:g}: {entropy:.2f} bits"
        axes.bar(places, row[top].tolist(), width=0.27, label=label, color=("#1f77b4", "#7f7f7f", "#d62728")[i])
    names = [{" ": "space"}.get(tokens[i], replace_undrawable(tokens[i])) for i in top]
    axes.set_xticks(range(len(top)), names, size=14, parse_math=False)
    axes.set_ylabel("probability", size=13)
    axes.set_title(f"The {unit} after “{replace_undrawable(text[-30:])}”", size=14, parse_math=False)
    axes.legend(fontsize=12)
    return figure

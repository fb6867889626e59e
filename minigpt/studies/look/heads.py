"""The view `heads`: how much the validation loss rises without each head (head ablation)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigpt.model import LanguageModel
from minigpt.model.loss import compute_mean_loss
from minigpt.studies.attention_heads import count_heads, find_attentions, without_heads
from minigpt.system.plotting import create_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNUSED = 0.005  # nats: a head whose ablation costs less is unused


def measure_head_ablation(model: LanguageModel, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Measure how much the loss rises when each head's output is set to zero.

    Args:
        model: a transformer.
        x: token ids (N, T).
        y: the ids to predict (N, T).

    Returns:
        The mean loss of the whole model in nats, and its rise without each head (L, H).

    Raises:
        ConfigError: the model has no heads.
    """
    attentions = find_attentions(model)
    whole = compute_mean_loss(model, x, y)
    rise = torch.empty(len(attentions), count_heads(attentions[0]))
    for layer, head in torch.cartesian_prod(*map(torch.arange, rise.shape)).view(-1, 2).tolist():
        with without_heads(model, [(layer, head)]):
            rise[layer, head] = compute_mean_loss(model, x, y) - whole
    return whole, rise


def round_rise(value: float) -> float:
    """Round to three digits, without a minus sign for zero."""
    return round(value, 3) + 0.0


def find_unused_heads(rise: Tensor) -> list[tuple[int, int]]:
    """Return the heads whose ablation costs less than 0.005 nats, as (block, head) from 1, for a rise (L, H)."""
    return [(int(block) + 1, int(head) + 1) for block, head in (rise < UNUSED).nonzero()]


def draw_heads(rise: Tensor, loss: float) -> "Figure":
    """Draw the rise of the loss without each head (L, H) as a heat map, and mark unused heads."""
    L, H = rise.shape
    figure = create_figure(max(6.0, 2.5 + 1.3 * H), 1.8 + 0.9 * L)
    axes = figure.subplots()
    darkest = max(float(rise.max()), 10 * UNUSED)  # if all heads are unused, all are pale
    image = axes.imshow(rise.numpy(), cmap="YlOrRd", vmin=0, vmax=darkest, aspect="auto")
    for block in range(L):
        for head in range(H):
            value = float(rise[block, head])
            label = f"{round_rise(value):.3f}" + ("\nunused" if value < UNUSED else "")
            color = "white" if value > 0.65 * darkest else "black"
            axes.text(head, block, label, ha="center", va="center", size=12, color=color)
    axes.set_xticks(range(H), [f"head {i + 1}" for i in range(H)], size=12)
    axes.set_yticks(range(L), [f"block {i + 1}" for i in range(L)], size=12)
    axes.set_title(f"Rise of the validation loss ({loss:.3f} nats)\nwithout each head", size=14)
    figure.colorbar(image)
    return figure

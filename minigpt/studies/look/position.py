"""The view `position`: the loss by the number of tokens that the model sees."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigpt.model import LanguageModel
from minigpt.model.loss import compute_token_losses
from minigpt.system.plotting import create_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compute_loss_by_position(model: LanguageModel, ids: Tensor) -> Tensor:
    """Return the mean loss at each position of the windows of `compute_exact_loss`: (T,), or fewer if N - 1 < T.

    Entry t is the mean over the predictions that see t + 1 tokens.
    """
    losses = compute_token_losses(model, ids).double()  # (N - 1,)
    places = torch.arange(len(losses)) % model.config.block_size
    sums = torch.zeros(int(places.max()) + 1, dtype=torch.float64).index_add(0, places, losses)
    return sums / places.bincount()


def draw_positions(curves: dict[str, Tensor], unit: str = "character") -> "Figure":
    """Draw one or more curves of `compute_loss_by_position`, by name. `unit` is what a token is."""
    figure = create_figure(9, 5)
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve.tolist(), "o-" if len(curve) <= 64 else "-", label=name, linewidth=2)
    axes.set_xlabel(f"{unit}s of context", size=13)
    axes.set_ylabel(f"validation loss (nats per {unit})", size=13)
    axes.set_title("Loss by context", size=15)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=12)
    return figure

"""What each head is worth: the validation loss when it is switched off."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from minigpt.drawing import new_figure
from minigpt.model import LanguageModel
from minigpt.model.loss import mean_loss
from minigpt.studies.attention import heads_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSED = 0.005  # nats; a head that costs less when it is off would not be missed


def worth_of_heads(model: LanguageModel, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """The mean loss of predicting y from x, both (N, T), and by how much it rises without each head, (L, H).

    A head is switched off by a hook that answers zeros in its place. Raises ConfigError for a model without heads.
    """
    blocks = heads_of(model)  # type: ignore[arg-type]
    whole = mean_loss(model, x, y)
    return whole, torch.tensor([[without(head, model, x, y) - whole for head in heads] for heads in blocks])


def without(head: nn.Module, model: LanguageModel, x: Tensor, y: Tensor) -> float:
    """The mean loss while this head answers nothing but zeros."""
    hook = head.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    try:
        return mean_loss(model, x, y)
    finally:
        hook.remove()


def rounded(value: float) -> float:
    """To three digits, and without a minus sign for nothing."""
    return round(value, 3) + 0.0


def nobody_would_miss(worth: Tensor) -> list[tuple[int, int]]:
    """The heads, as (block, head) counted from 1, without which the loss rises by less than 0.005 nats."""
    return [(int(block) + 1, int(head) + 1) for block, head in (worth < MISSED).nonzero()]


def draw_heads(worth: Tensor, loss: float) -> "Figure":
    """The worth (L, H) of each head as a heat map; those nobody would miss are marked."""
    L, H = worth.shape
    figure = new_figure(max(6.0, 2.5 + 1.3 * H), 1.8 + 0.9 * L)
    axes = figure.subplots()
    darkest = max(float(worth.max()), 10 * MISSED)  # heads that all do nothing are to look like it
    image = axes.imshow(worth.numpy(), cmap="YlOrRd", vmin=0, vmax=darkest, aspect="auto")
    for block in range(L):
        for head in range(H):
            value = float(worth[block, head])
            label = f"{rounded(value):.3f}" + ("\nnot missed" if value < MISSED else "")
            colour = "white" if value > 0.65 * darkest else "black"
            axes.text(head, block, label, ha="center", va="center", size=12, color=colour)
    axes.set_xticks(range(H), [f"head {i + 1}" for i in range(H)], size=12)
    axes.set_yticks(range(L), [f"block {i + 1}" for i in range(L)], size=12)
    axes.set_title(f"What the validation loss of {loss:.3f} rises by\nwithout each head (nats)", size=14)
    figure.colorbar(image)
    return figure

"""What each head is worth: the validation loss when it is switched off."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minigpt.model import LanguageModel
from minigpt.model.lecture import MultiHeadAttention
from minigpt.model.loss import compute_mean_loss
from minigpt.studies.look.attention import Together, count_heads, find_attentions
from minigpt.system.plotting import create_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSED = 0.005  # nats; a head that costs less when it is off would not be missed


def measure_head_ablation(model: LanguageModel, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """The mean loss of predicting y from x, both (N, T), and by how much it rises without each head, (L, H).

    Raises ConfigError for a model without heads.
    """
    attentions = find_attentions(model)  # type: ignore[arg-type]
    whole = compute_mean_loss(model, x, y)
    worth = torch.empty(len(attentions), count_heads(attentions[0]))
    for layer, head in torch.cartesian_prod(*map(torch.arange, worth.shape)).view(-1, 2).tolist():
        hook = ablate_head(attentions[layer], head)
        try:
            worth[layer, head] = compute_mean_loss(model, x, y) - whole
        finally:
            hook.remove()
    return whole, worth


def ablate_head(attention: MultiHeadAttention | Together, head: int) -> RemovableHandle:
    """A hook that puts zeros in the place of what a head of that attention gathers."""

    def zeros(part: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    def without(proj: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        heads = inputs[0].unflatten(-1, (count_heads(attention), -1)).clone()  # (B * T, C) -> (B * T, H, D)
        heads[:, head] = 0
        return heads.flatten(-2)

    if isinstance(attention, Together):
        return attention.proj.register_forward_pre_hook(without)
    return attention.heads[head].register_forward_hook(zeros)


def rounded(value: float) -> float:
    """To three digits, and without a minus sign for nothing."""
    return round(value, 3) + 0.0


def find_redundant_heads(worth: Tensor) -> list[tuple[int, int]]:
    """The heads, as (block, head) counted from 1, without which the loss rises by less than 0.005 nats."""
    return [(int(block) + 1, int(head) + 1) for block, head in (worth < MISSED).nonzero()]


def draw_heads(worth: Tensor, loss: float) -> "Figure":
    """The worth (L, H) of each head as a heat map; those nobody would miss are marked."""
    L, H = worth.shape
    figure = create_figure(max(6.0, 2.5 + 1.3 * H), 1.8 + 0.9 * L)
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

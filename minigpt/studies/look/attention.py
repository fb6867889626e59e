"""Where each head looks: the attention weights over a text."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minigpt.errors import ConfigError
from minigpt.model import gpt, modern
from minigpt.model.lecture import MultiHeadAttention
from minigpt.system.plotting import create_figure, replace_undrawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELLED = 48  # characters that there is room for beside a map
Together = gpt.Attention | modern.Attention  # all heads at once


def find_attentions(model: nn.Module) -> list[MultiHeadAttention | Together]:
    """The attention of each block, in order. Raises ConfigError for a model without any."""
    found = [part for part in model.modules() if isinstance(part, MultiHeadAttention | Together)]
    if not found:
        raise ConfigError("this model has no attention heads: look at a transformer's run")
    return found


def count_heads(attention: MultiHeadAttention | Together) -> int:
    """How many heads it has."""
    return attention.n_head if isinstance(attention, Together) else len(attention.heads)


@torch.no_grad()
def compute_attention_maps(model: nn.Module, idx: Tensor) -> Tensor:
    """The attention weights of every head over the token ids (T,): (L, H, T, T), on the CPU.

    Row t of a map says how much position t takes from each position up to itself; it sums to one. The model
    is in evaluation mode meanwhile. Raises ConfigError for a model without attention.
    """
    attentions = find_attentions(model)
    maps = torch.empty(len(attentions), count_heads(attentions[0]), len(idx), len(idx))
    hooks = [hook for attention, place in zip(attentions, maps, strict=True) for hook in catching(attention, place)]
    was_training = model.training
    model.eval()
    try:
        model(idx[None])
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return maps


def catching(attention: MultiHeadAttention | Together, maps: Tensor) -> list[RemovableHandle]:
    """Hooks that write the attention's weights to `maps` (H, T, T) when a single window comes along.

    The lecture's heads form them, and are overheard on the way to their dropout. The fast attention doesn't:
    they are computed from its queries and keys.
    """

    def from_dropout(place: Tensor, dropout: nn.Module, inputs: tuple[Tensor]) -> None:
        place.copy_(inputs[0][0])  # (1, T, T) -> (T, T)

    def from_queries(part: Together, inputs: tuple[Tensor, int]) -> None:
        maps.copy_(weights_of(part, *inputs))

    if isinstance(attention, Together):
        return [attention.register_forward_pre_hook(from_queries)]
    dropouts = (head.get_submodule("dropout") for head in attention.heads)
    return [
        dropout.register_forward_pre_hook(partial(from_dropout, place))
        for dropout, place in zip(dropouts, maps, strict=True)
    ]


@torch.no_grad()
def weights_of(attention: Together, x: Tensor, T: int) -> Tensor:
    """The weights (H, T, T) that the fast attention gives in its only window x (T, C)."""
    q, k, _ = (part[0] for part in attention.heads(x, T))  # (H, T, D) each
    scores = q @ k.mT * q.shape[-1] ** -0.5  # (H, T, T)
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1)


def draw_attention(maps: Tensor, text: Sequence[str]) -> "Figure":
    """The maps (L, H, T, T) over a text's tokens as a grid, a row for each block and a column for each head."""
    L, H, T, _ = maps.shape
    figure = create_figure(1 + 2.6 * H, 1 + 2.6 * L)
    grid = figure.subplots(L, H, squeeze=False, sharex=True, sharey=True)
    size = min(9.0, 230 / T)
    for layer in range(L):
        for head in range(H):
            axes = grid[layer, head]
            image = axes.imshow(maps[layer, head].numpy(), cmap="magma", vmin=0, vmax=1)
            axes.set_title(f"block {layer + 1}, head {head + 1}", size=11)
            axes.tick_params(length=0)
            if len(text) == T <= LABELLED:
                characters = [replace_undrawable(c) for c in text]
                axes.set_xticks(range(T), characters, size=size, family="monospace", parse_math=False)
                axes.set_yticks(range(T), characters, size=size, family="monospace", parse_math=False)
    figure.colorbar(image, ax=grid, label="attention weight", shrink=0.6)
    figure.suptitle("Where each position (a row) looks (a column)", size=15)
    return figure

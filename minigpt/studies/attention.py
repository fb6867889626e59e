"""Where each head looks: the attention weights over a text."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from minigpt.drawing import drawable, new_figure
from minigpt.errors import ConfigError
from minigpt.model.lecture import Head, MultiHeadAttention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELLED = 48  # characters that there is room for beside a map


def heads_of(model: nn.Module) -> list[list[Head]]:
    """The heads of each block, in order. Raises ConfigError for a model without attention."""
    blocks = [list(part.heads) for part in model.modules() if isinstance(part, MultiHeadAttention)]
    if not blocks:
        raise ConfigError("this model has no attention heads: look at a transformer's run")
    return blocks  # type: ignore[return-value]


@torch.no_grad()
def attention_maps(model: nn.Module, idx: Tensor) -> Tensor:
    """The attention weights of every head over the token ids (T,): (L, H, T, T), on the CPU.

    Row t of a map says how much position t takes from each position up to itself; it sums to one. The
    weights are caught on their way into each head's dropout; the model is in evaluation mode meanwhile.
    Raises ConfigError for a model without attention.
    """
    blocks = heads_of(model)
    caught: dict[nn.Module, Tensor] = {}

    def catch(dropout: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught[dropout] = inputs[0][0].cpu()  # (1, T, T) -> (T, T)

    hooks = [head.dropout.register_forward_pre_hook(catch) for heads in blocks for head in heads]
    was_training = model.training
    model.eval()
    try:
        model(idx[None])
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return torch.stack([torch.stack([caught[head.dropout] for head in heads]) for heads in blocks])


def draw_attention(maps: Tensor, text: str) -> "Figure":
    """The maps (L, H, T, T) as a grid, a row for each block and a column for each head."""
    L, H, T, _ = maps.shape
    figure = new_figure(1 + 2.6 * H, 1 + 2.6 * L)
    grid = figure.subplots(L, H, squeeze=False, sharex=True, sharey=True)
    size = min(9.0, 230 / T)
    for layer in range(L):
        for head in range(H):
            axes = grid[layer, head]
            image = axes.imshow(maps[layer, head].numpy(), cmap="magma", vmin=0, vmax=1)
            axes.set_title(f"block {layer + 1}, head {head + 1}", size=11)
            axes.tick_params(length=0)
            if len(text) == T <= LABELLED:
                characters = [drawable(c) for c in text]
                axes.set_xticks(range(T), characters, size=size, family="monospace", parse_math=False)
                axes.set_yticks(range(T), characters, size=size, family="monospace", parse_math=False)
    figure.colorbar(image, ax=grid, label="attention weight", shrink=0.6)
    figure.suptitle("Where each position (a row) looks (a column)", size=15)
    return figure

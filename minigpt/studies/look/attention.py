"""The view `attention`: where each head looks, as maps of the attention weights over a text."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minigpt.model import LanguageModel
from minigpt.model.language_model import evaluation_mode
from minigpt.model.lecture import MultiHeadAttention
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import FusedAttention, count_heads, find_attentions
from minigpt.studies.text_window import TextOrIds, decode_tokens, encode_window
from minigpt.system.device import limit_threads
from minigpt.system.plotting import Plottable, create_figure, make_token_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MASKED = "#b0b0b0"  # the color of the positions that the causal mask hides
MAX_LABELS = 48  # a map has room for this many characters
TITLE_CHARACTERS = 8.5  # of the title on an inch of the figure


class AttentionMaps(Plottable, Tensor):
    """The attention weights (L, H, T, T) of a text: a tensor that a notebook shows as a figure.

    What PyTorch computes from it, slices included, is a plain tensor.

    Attributes:
        tokens: the text of each token that the model read.
    """

    tokens: list[str]

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch as for a plain tensor."""
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    def plot(self) -> "Figure":
        """Draw the maps as `draw_attention` does."""
        return draw_attention(self, self.tokens)


def attention_maps(run: Run, text: TextOrIds) -> AttentionMaps:
    """Return the attention weights of every head of a run's model over a text.

    Args:
        run: the run of a transformer.
        text: the text or its token ids. The model sees the last block_size tokens, and for an empty text the start
            token.

    Returns:
        The weights (L, H, T, T), as `compute_attention_maps` returns them. Their `plot` draws them.

    Raises:
        ConfigError: the model has no attention.
        UnknownCharacterError: the text has a character outside the vocabulary.
    """
    idx = encode_window(run, text)
    with limit_threads(len(idx) * run.config.model.n_embd):
        maps = compute_attention_maps(run.model, idx).as_subclass(AttentionMaps)
    maps.tokens = decode_tokens(run.tokenizer, idx)
    return maps


@torch.no_grad()
def compute_attention_maps(model: LanguageModel, idx: Tensor) -> Tensor:
    """Compute the attention weights of every head over a text.

    Row t of a map has the weights of position t for each position up to itself. It sums to one. The model runs in
    evaluation mode, and its mode is restored.

    Args:
        model: a transformer.
        idx: token ids (T,), at most block_size.

    Returns:
        The weights (L, H, T, T), on the CPU.

    Raises:
        ConfigError: the model has no attention.
    """
    attentions = find_attentions(model)
    maps = torch.empty(len(attentions), count_heads(attentions[0]), len(idx), len(idx))
    hooks = [
        hook for attention, place in zip(attentions, maps, strict=True) for hook in _record_weights(attention, place)
    ]
    try:
        with evaluation_mode(model):
            model(idx[None])
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def _record_weights(attention: MultiHeadAttention | FusedAttention, maps: Tensor) -> list[RemovableHandle]:
    """Register hooks that write the attention's weights for one window to `maps` (H, T, T), and return them.

    A head of the lecture passes its weights to its dropout, where a hook reads them. The fused attention has no weights
    to read, so a hook computes them from the queries and keys.
    """

    def from_dropout(place: Tensor, dropout: nn.Module, inputs: tuple[Tensor]) -> None:
        place.copy_(inputs[0][0])  # (1, T, T) -> (T, T)

    def from_queries(attend: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps.copy_(_compute_weights(inputs[0][0], inputs[1][0]))  # (H, T, D) each -> (H, T, T)

    if isinstance(attention, FusedAttention):
        return [attention.attend.register_forward_pre_hook(from_queries)]
    dropouts = (head.get_submodule("dropout") for head in attention.heads)
    return [
        dropout.register_forward_pre_hook(partial(from_dropout, place))
        for dropout, place in zip(dropouts, maps, strict=True)
    ]


def _compute_weights(q: Tensor, k: Tensor) -> Tensor:
    """Compute the weights (H, T, T) of causal attention with queries and keys (H, T, D)."""
    scores = q @ k.mT * q.shape[-1] ** -0.5  # (H, T, T)
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1)


def draw_attention(maps: Tensor, text: Sequence[str]) -> "Figure":
    """Draw the maps (L, H, T, T) over a text's tokens as a grid: a row for each block, a column for each head."""
    import matplotlib

    L, H, T, _ = maps.shape
    width = 1 + 2.6 * H
    figure = create_figure(width, 1 + 2.6 * L)
    grid = figure.subplots(L, H, squeeze=False, sharex=True, sharey=True)
    size = min(9.0, 230 / T)
    later = np.triu(np.ones((T, T), dtype=bool), 1)  # positions that the mask hides from a row
    colors = matplotlib.colormaps["magma"].with_extremes(bad=MASKED)
    for layer in range(L):
        for head in range(H):
            axes = grid[layer, head]
            image = axes.imshow(np.ma.array(maps[layer, head].numpy(), mask=later), cmap=colors, vmin=0, vmax=1)
            axes.set_title(f"block {layer + 1}, head {head + 1}", size=11)
            axes.tick_params(length=0)
            if len(text) == T <= MAX_LABELS:
                labels = [make_token_label(token) for token in text]
                axes.set_xticks(range(T), labels, size=size, family="monospace", parse_math=False)
                axes.set_yticks(range(T), labels, size=size, family="monospace", parse_math=False)
    figure.colorbar(image, ax=grid, label="attention weight", shrink=0.6)
    title = "Attention weights: from each position (row) to those up to it (columns); gray: masked"
    figure.suptitle(textwrap.fill(title, int(TITLE_CHARACTERS * width)), size=15)
    return figure

"""The logit lens: what a transformer would predict if it ended after each block.

Each block adds to the residual stream, a vector for each position. The model's last norm and its head turn the stream
after the last block into logits. The logit lens applies the same norm and head to the stream after every block, and to
the embedding (nostalgebraist 2020, "interpreting GPT: the logit lens").

Shapes: T positions, C channels, V vocabulary, L blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError
from minigpt.model import GPT, GPTLanguageModel, LanguageModel, Modern
from minigpt.model.language_model import evaluation_mode
from minigpt.runs.run import Run
from minigpt.studies.text_window import TextOrIds, decode_tokens, encode_window
from minigpt.system.device import limit_threads
from minigpt.system.plotting import Plottable, create_figure, cut_to_width, make_token_label
from minigpt.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Transformer = GPTLanguageModel | GPT | Modern
MAX_POSITIONS = 32  # a figure has room for this many columns
COLUMNS = 6  # characters of a token in a cell
DARK = 0.6  # probability from which a cell is so dark that its text is white


@dataclass(frozen=True)
class LogitLens(Plottable):
    """What a model predicts after the embedding and after each block. A notebook shows it as a figure.

    Attributes:
        ids: the token ids that the model read, (T,).
        layers: the names of the layers: "embedding", "block 0", "block 1", ...
        logits: of the token that follows each position, (L + 1, T, V). Those of the last layer are the model's own.
        tokenizer: the run's, which turns ids into text.
    """

    ids: Tensor
    layers: list[str]
    logits: Tensor
    tokenizer: Tokenizer = field(repr=False)

    def plot(self) -> "Figure":
        """Draw the most likely token after each layer, at each of the last 32 positions at most."""
        probabilities, best = self.logits[:, -MAX_POSITIONS:].softmax(dim=-1).max(dim=-1)  # (L + 1, T) each
        read = decode_tokens(self.tokenizer, self.ids[-MAX_POSITIONS:])
        predicted = [decode_tokens(self.tokenizer, row) for row in best]
        left_out = f" (the last {len(read)} of {len(self.ids)} positions)" if len(read) < len(self.ids) else ""
        title = f"Logit lens: the most likely next token after each layer{left_out}"
        return draw_lens(probabilities, predicted, self.layers, read, title)


def logit_lens(run: Run, text: TextOrIds) -> LogitLens:
    """Return what a run's model predicts after each block, at each position of a text.

    Args:
        run: the run of a transformer.
        text: the text or its token ids. The model sees the last block_size tokens, and for an empty text the start
            token.

    Raises:
        ConfigError: the model has no blocks.
        UnknownCharacterError: the text has a character outside the vocabulary.
    """
    idx = encode_window(run, text)
    layers = dict(stream_lens_logits(run, idx))
    logits = torch.stack([logits.cpu() for logits in layers.values()])
    return LogitLens(idx.cpu(), list(layers), logits, run.tokenizer)


def stream_lens_logits(run: Run, idx: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the logits (T, V) of each layer, for token ids (T,). Errors are those of `logit_lens`."""
    with limit_threads(len(idx) * run.config.model.n_embd):
        stream = compute_residual_stream(run.model, idx)  # (L + 1, T, C)
    for layer, x in enumerate(stream):
        with limit_threads(len(idx) * run.config.model.n_embd):  # never around a yield
            logits = compute_lens_logits(run.model, x)
        yield f"block {layer - 1}" if layer else "embedding", logits


def require_transformer(model: LanguageModel) -> Transformer:
    """Return the model. Raise ConfigError if it has no blocks."""
    if not isinstance(model, Transformer):
        raise ConfigError("this model has no blocks, which the logit lens needs: look at a transformer's run")
    return model


@torch.no_grad()
def compute_residual_stream(model: LanguageModel, idx: Tensor) -> Tensor:
    """Compute the residual stream after the embedding and after each block. Dropout is off.

    Args:
        model: a transformer.
        idx: token ids (T,), at most block_size.

    Returns:
        The stream (L + 1, T, C).

    Raises:
        ConfigError: the model has no blocks.
    """
    model = require_transformer(model)
    layers: list[Tensor] = []

    def record_input(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layers.append(inputs[0][0])  # (1, T, C) -> (T, C)

    def record_output(block: nn.Module, inputs: object, output: Tensor) -> None:
        layers.append(output[0])

    hooks = [block.register_forward_hook(record_output) for block in model.blocks]
    hooks.append(model.blocks[0].register_forward_pre_hook(record_input))
    try:
        with evaluation_mode(model):
            model(idx[None])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers)


@torch.no_grad()
def compute_lens_logits(model: LanguageModel, x: Tensor) -> Tensor:
    """Apply a transformer's last norm and its head to one layer of its residual stream: (T, C) -> (T, V)."""
    model = require_transformer(model)
    x = x[None]  # (1, T, C), the shape in the model's forward, so that every bit is the same
    x = model.norm(x) if isinstance(model, Modern) else model.ln_f(x)
    if model.lm_head is not None:
        return model.lm_head(x)[0]
    assert isinstance(model, GPT)  # only GPT-2's head is the token embedding table
    return model.head_product(x, model.token_embedding_table.weight)[0]


def draw_lens(
    probabilities: Tensor, predicted: Sequence[Sequence[str]], layers: Sequence[str], read: Sequence[str], title: str
) -> "Figure":
    """Draw a logit lens as a heat map: a row for each layer, the first at the bottom, and a column for each position.

    Args:
        probabilities: of the most likely tokens, (L + 1, T).
        predicted: the text of these tokens, for each layer and position.
        layers: the names of the layers.
        read: the text of the token at each position.
        title: the figure's title.
    """
    T = len(read)
    figure = create_figure(max(7.0, 2 + 0.5 * T), 2.2 + 0.4 * len(layers))
    axes = figure.subplots()
    image = axes.imshow(probabilities.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    for layer, row in enumerate(predicted):
        for position, token in enumerate(row):
            color = "white" if float(probabilities[layer, position]) > DARK else "black"
            label = cut_to_width(make_token_label(token), COLUMNS)
            text = axes.text(position, layer, label, ha="center", va="center", size=9, family="monospace", color=color)
            text.set_parse_math(False)  # $…$ in a token is not a formula
    labels = [cut_to_width(make_token_label(token), COLUMNS) for token in read]
    axes.set_xticks(range(T), labels, size=9, family="monospace", parse_math=False)
    axes.set_yticks(range(len(layers)), layers)
    axes.set_xlabel("token that the model reads")
    axes.set_title(title, size=12)
    figure.colorbar(image, label="probability")
    return figure

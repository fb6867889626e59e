"""The logit lens: what a transformer would predict if it ended after each block.

Each block adds to the residual stream, a vector for each position. The model's last norm and its head turn the stream
after the last block into logits. The logit lens applies the same norm and head to the stream after every block, and to
the embedding (nostalgebraist 2020, "interpreting GPT: the logit lens").

Shapes: T positions, C channels, V vocabulary, L blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError
from minigpt.model import GPT, GPTLanguageModel, LanguageModel, Modern
from minigpt.model.language_model import evaluation_mode
from minigpt.runs.run import Run
from minigpt.studies.text_window import TextOrIds, encode_window
from minigpt.system.device import limit_threads

Transformer = GPTLanguageModel | GPT | Modern


@dataclass(frozen=True)
class LogitLens:
    """What a model predicts after the embedding and after each block.

    Attributes:
        ids: the token ids that the model read, (T,).
        layers: the names of the layers: "embedding", "block 0", "block 1", ...
        logits: of the token that follows each position, (L + 1, T, V). Those of the last layer are the model's own.
    """

    ids: Tensor
    layers: list[str]
    logits: Tensor


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
    return LogitLens(idx.cpu(), list(layers), torch.stack([logits.cpu() for logits in layers.values()]))


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

"""The rungs of the ladder: from a blind guess to the whole transformer, one idea at a time.

Each network is a few lines around the parts of model/lecture.py. The last one is `GPTLanguageModel` itself.
B is the batch, T time, C channels (n_embd), V the vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.model.lecture import (
    BigramLanguageModel,
    FeedForward,
    GPTLanguageModel,
    Head,
    MultiHeadAttention,
    compute_next_token_loss,
)


class CountedModel(nn.Module):
    """A table of log-probabilities from counts. Row i is for the token after token i.

    Attributes:
        numbers: how many numbers the table holds.
    """

    rows: Tensor

    def __init__(self, config: ModelConfig, rows: Tensor) -> None:
        """Make the model from a table (V, V), or from one row (1, V) for every token."""
        super().__init__()
        self.config = config
        self.numbers = rows.numel()
        self.register_buffer("rows", rows.expand(config.vocab_size, config.vocab_size))  # (V, V)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return log-probabilities (B, T, V) for ids (B, T), and the mean loss in nats if there are targets (B, T)."""
        logits = self.rows[idx]  # (B, T) -> (B, T, V)
        return logits, compute_next_token_loss(logits, targets)


def fit_uniform(ids: Tensor, config: ModelConfig) -> CountedModel:
    """Return a blind guess: every token is equally likely."""
    return CountedModel(config, torch.tensor([[-math.log(config.vocab_size)]]))


def fit_frequencies(ids: Tensor, config: ModelConfig) -> CountedModel:
    """Count how often each token of the ids (N,) occurs. Every count gets one more, so that no token is impossible."""
    counts = 1 + ids.bincount(minlength=config.vocab_size).double()  # (V,)
    return CountedModel(config, (counts / counts.sum()).log().float()[None])


def fit_bigram_counts(ids: Tensor, config: ModelConfig) -> CountedModel:
    """Count how often each token of the ids (N,) follows each other. Every count gets one more.

    The loss of this table is the best that the learned bigram can reach.
    """
    V = config.vocab_size
    counts = 1 + (ids[:-1] * V + ids[1:]).bincount(minlength=V * V).view(V, V).double()
    return CountedModel(config, (counts / counts.sum(dim=1, keepdim=True)).log().float())


class CausalAverage(nn.Module):
    """The mean of each position and all before it: attention with equal weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        T = x.shape[1]
        weights = torch.tril(torch.ones(T, T, device=x.device))
        weights = weights / weights.sum(dim=1, keepdim=True)  # (T, T), each row sums to one
        return weights @ x  # (T, T) @ (B, T, C) -> (B, T, C)


class PlainBlock(nn.Module):
    """Attention, then the feed-forward layer, and nothing else."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sa = MultiHeadAttention(config)
        self.ffwd = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self.ffwd(self.sa(x))


class ResidualBlock(PlainBlock):
    """A plain block whose two parts are added to their inputs: each learns a difference only."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = x + self.sa(x)
        x = x + self.ffwd(x)
        return x


class PartialGPT(nn.Module):
    """The networks between the bigram and the whole GPT: embeddings, a body, and the language-model head.

    The weights start as PyTorch draws them, as at this point of the lecture. The small weights of `init_weights` would
    remove most of the signal in a network without layer norm (docs/log.md, "The ladder's start").
    """

    def __init__(self, config: ModelConfig, body: nn.Module) -> None:
        """Make the network around a body that maps (B, T, C) to (B, T, C)."""
        super().__init__()
        self.config = config
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding_table = nn.Embedding(config.block_size, config.n_embd)
        self.body = body
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, T, V) for ids (B, T), and the mean loss in nats if there are targets (B, T)."""
        x = self.token_embedding_table(idx)  # (B, T) -> (B, T, C)
        x = x + self.position_embedding_table(torch.arange(idx.shape[1], device=idx.device))  # (B, T, C)
        x = self.body(x)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, C) -> (B, T, V)
        return logits, compute_next_token_loss(logits, targets)


def _make_average(config: ModelConfig) -> PartialGPT:
    """Make the network whose body is the average of the past."""
    return PartialGPT(config, CausalAverage())


def _make_one_head(config: ModelConfig) -> PartialGPT:
    """Make the network whose body is a single head, as wide as the embedding."""
    return PartialGPT(config, Head(dataclasses.replace(config, n_head=1)))


def _make_multi_head(config: ModelConfig) -> PartialGPT:
    """Make the network whose body is multi-head attention."""
    return PartialGPT(config, MultiHeadAttention(config))


def _make_one_block(config: ModelConfig) -> PartialGPT:
    """Make the network whose body is one plain block."""
    return PartialGPT(config, PlainBlock(config))


def _make_plain_blocks(config: ModelConfig) -> PartialGPT:
    """Make the network whose body is n_layer plain blocks."""
    return PartialGPT(config, nn.Sequential(*(PlainBlock(config) for _ in range(config.n_layer))))


def _make_residual_blocks(config: ModelConfig) -> PartialGPT:
    """Make the network whose body is n_layer residual blocks."""
    return PartialGPT(config, nn.Sequential(*(ResidualBlock(config) for _ in range(config.n_layer))))


@dataclass(frozen=True)
class Rung:
    """One step of the ladder. It has either `fit` or `network`.

    Attributes:
        name: the rung's name.
        idea: what is new, in a few words.
        fit: makes a model by counting in the training ids (N,).
        network: makes a network to be trained.
        settings: settings that differ from the ladder's.
        preset: the preset of all settings, instead of the ladder's.
    """

    name: str
    idea: str
    fit: Callable[[Tensor, ModelConfig], CountedModel] | None = None
    network: Callable[[ModelConfig], nn.Module] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    preset: str | None = None


RUNGS = (
    Rung("uniform guess", "every character is as likely as any other", fit=fit_uniform),
    Rung("character frequencies", "e is common, z is rare", fit=fit_frequencies),
    Rung("bigram, counted", "after q comes u", fit=fit_bigram_counts),
    # A step changes only those rows of the table that are in its batch, so this rung needs a higher learning rate.
    Rung(
        "bigram, learned",
        "the same table by gradient descent, at a rate of 1e-2",
        network=BigramLanguageModel,
        settings={"learning_rate": 1e-2},
    ),
    Rung("average of the past", "the mean of all tokens so far", network=_make_average),
    Rung("one head", "self-attention: choose which tokens to read", network=_make_one_head),
    Rung("multi-head", "several choices at once", network=_make_multi_head),
    Rung("+ feed-forward", "compute on what was read", network=_make_one_block),
    Rung("several blocks", "repeat both, block after block", network=_make_plain_blocks),
    Rung("+ residual", "each block adds to its input", network=_make_residual_blocks),
    Rung("+ layer norm", "each block reads a normalized input: the lecture's GPT", network=GPTLanguageModel),
)
FULL = Rung("+ dropout and scale", "lecture-large, its own batches", network=GPTLanguageModel, preset="lecture-large")

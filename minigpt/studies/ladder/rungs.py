"""The rungs of the ladder: from knowing nothing to the whole transformer, one idea at a time.

Each network is a few lines over the parts of model/lecture.py, and the last is `GPTLanguageModel` itself.
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
    next_token_loss,
)


class Table(nn.Module):
    """A table of log-probabilities, filled by counting: row i says what follows token i; one row, what follows any.

    `numbers` is how many it holds.
    """

    rows: Tensor

    def __init__(self, config: ModelConfig, rows: Tensor) -> None:
        super().__init__()
        self.config = config
        self.numbers = rows.numel()
        self.register_buffer("rows", rows.expand(config.vocab_size, config.vocab_size))  # (V, V)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, T) to log-probabilities (B, T, V), and the mean loss in nats if `targets` are given."""
        logits = self.rows[idx]  # (B, T) -> (B, T, V)
        return logits, next_token_loss(logits, targets)


def uniform(ids: Tensor, config: ModelConfig) -> Table:
    """A blind guess: every token as likely as any other."""
    return Table(config, torch.tensor([[-math.log(config.vocab_size)]]))


def frequencies(ids: Tensor, config: ModelConfig) -> Table:
    """How often each token occurs; one is added to every count, so that none is impossible."""
    counts = 1 + ids.bincount(minlength=config.vocab_size).double()  # (V,)
    return Table(config, (counts / counts.sum()).log().float()[None])


def bigram_counts(ids: Tensor, config: ModelConfig) -> Table:
    """How often each token follows each; one is added to every count. What the learned bigram can reach at best."""
    V = config.vocab_size
    counts = 1 + (ids[:-1] * V + ids[1:]).bincount(minlength=V * V).view(V, V).double()
    return Table(config, (counts / counts.sum(dim=1, keepdim=True)).log().float())


class AverageOfThePast(nn.Module):
    """Every position gathers the mean of all before it and itself: attention in which nobody may choose."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        T = x.shape[1]
        weights = torch.tril(torch.ones(T, T, device=x.device))
        weights = weights / weights.sum(dim=1, keepdim=True)  # (T, T), each row sums to one
        return weights @ x  # (T, T) @ (B, T, C) -> (B, T, C)


class PlainBlock(nn.Module):
    """Communication, then computation, and nothing else."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sa = MultiHeadAttention(config)
        self.ffwd = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.ffwd(self.sa(x))


class ResidualBlock(PlainBlock):
    """The same, each added to its input: what a block has to learn is the difference."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.sa(x)
        x = x + self.ffwd(x)
        return x


class Stage(nn.Module):
    """What the networks between the bigram and the whole share: embeddings, a body that differs, and a guess.

    The weights start as PyTorch draws them, as at this point in the lecture: without layer norm the small
    ones that `init_weights` sets would take most of the signal away (docs/log.md, "The ladder's start").
    """

    def __init__(self, config: ModelConfig, body: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding_table = nn.Embedding(config.block_size, config.n_embd)
        self.body = body
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, T) to logits (B, T, V), and the mean loss in nats if `targets` (B, T) are given."""
        x = self.token_embedding_table(idx)  # (B, T) -> (B, T, C)
        x = x + self.position_embedding_table(torch.arange(idx.shape[1], device=idx.device))  # (B, T, C)
        x = self.body(x)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, C) -> (B, T, V)
        return logits, next_token_loss(logits, targets)


def one_head(config: ModelConfig) -> Stage:
    """A single head as wide as the embedding."""
    return Stage(config, Head(dataclasses.replace(config, n_head=1)))


def blocks(block: type[nn.Module]) -> Callable[[ModelConfig], Stage]:
    """A network of n_layer blocks of that kind."""
    return lambda config: Stage(config, nn.Sequential(*(block(config) for _ in range(config.n_layer))))


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: a name, the idea in a few words, and the model that has it.

    Attributes:
        count: fills a table from the training ids (N,); None if the rung is learned.
        network: makes the network that is to learn; None if the rung is counted.
        settings: in what its training differs from the other rungs'.
        preset: where all its settings come from instead of the ladder's.
    """

    name: str
    idea: str
    count: Callable[[Tensor, ModelConfig], Table] | None = None
    network: Callable[[ModelConfig], nn.Module] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    preset: str | None = None


RUNGS = (
    Rung("uniform guess", "every character is as likely as any other", count=uniform),
    Rung("character frequencies", "e is common, z is rare", count=frequencies),
    Rung("bigram, counted", "after q comes u", count=bigram_counts),
    # A step reaches only the rows of the table that its batch met: at the others' rate it would need many more.
    Rung(
        "bigram, learned",
        "the same table by descent, at a rate of 1e-2",
        network=BigramLanguageModel,
        settings={"learning_rate": 1e-2},
    ),
    Rung("average of the past", "a bag of all so far", network=lambda config: Stage(config, AverageOfThePast())),
    Rung("one head", "self-attention: choose what to gather", network=one_head),
    Rung("multi-head", "several questions at once", network=lambda config: Stage(config, MultiHeadAttention(config))),
    Rung("+ feed-forward", "think about what was gathered", network=lambda config: Stage(config, PlainBlock(config))),
    Rung("several blocks", "the same again and again", network=blocks(PlainBlock)),
    Rung("+ residual", "each block adds to what is there", network=blocks(ResidualBlock)),
    Rung("+ layer norm", "and sees it normalised: the lecture's GPT", network=GPTLanguageModel),
)
FULL = Rung("+ dropout and scale", "lecture-large, its own batches", network=GPTLanguageModel, preset="lecture-large")

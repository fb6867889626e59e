"""The models of the lecture, in the order they are taught; read this file from top to bottom.

It starts at a bigram model, which sees one character, and ends at a decoder-only transformer (GPT).
Everything here is written to be read: one head at a time, the mask written out, the shapes beside
each line. In the shapes, B is the batch, T is time (positions, up to block_size), C is channels
(n_embd), D is the size of one head and V the size of the vocabulary. How a model writes text is told
in generation/engine.py, how it learns in training/loop.py.

The papers behind it: attention and the block, Vaswani et al. 2017, "Attention Is All You Need";
layer norm before each sublayer, and the decoder-only form, Radford et al. 2019, GPT-2. Module and
parameter names are those of Andrej Karpathy's lecture "Let's build GPT", so its weights load here.
"""

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig


class BigramLanguageModel(nn.Module):
    """The baseline: each token looks up the logits of the next one in a table, and sees nothing else."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.vocab_size)
        self.apply(init_weights)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, T) to logits (B, T, V), and the mean loss in nats if `targets` (B, T) are given."""
        logits = self.token_embedding_table(idx)  # (B, T) -> (B, T, V)
        return logits, next_token_loss(logits, targets)


class Head(nn.Module):
    """One head of self-attention: each position gathers from the past what it finds relevant.

    A position sends out a query ("what am I looking for?"), every position offers a key ("what do I
    hold?"), and where they agree the position's value ("what I tell you") is passed on.
    """

    tril: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        head_size = config.n_embd // config.n_head
        self.key = nn.Linear(config.n_embd, head_size, bias=False)
        self.query = nn.Linear(config.n_embd, head_size, bias=False)
        self.value = nn.Linear(config.n_embd, head_size, bias=False)
        self.register_buffer("tril", torch.tril(torch.ones(config.block_size, config.block_size)))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, D)."""
        T = x.shape[1]
        k = self.key(x)  # (B, T, C) -> (B, T, D)
        q = self.query(x)  # (B, T, C) -> (B, T, D)
        # Dot products of vectors of size D grow as sqrt(D); scaled back, the softmax starts out soft.
        weights = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, T, D) @ (B, D, T) -> (B, T, T)
        # The causal mask: position t may look at positions 0..t, never at what it has to predict.
        weights = weights.masked_fill(self.tril[:T, :T] == 0, float("-inf"))  # (B, T, T)
        weights = F.softmax(weights, dim=-1)  # (B, T, T), each row sums to one
        weights = self.dropout(weights)  # (B, T, T)
        v = self.value(x)  # (B, T, C) -> (B, T, D)
        return weights @ v  # (B, T, T) @ (B, T, D) -> (B, T, D)


class MultiHeadAttention(nn.Module):
    """Several heads side by side, each with its own question, their answers mixed by a projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(config) for _ in range(config.n_head))
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        out = torch.cat([head(x) for head in self.heads], dim=-1)  # n_head of (B, T, D) -> (B, T, C)
        return self.dropout(self.proj(out))  # (B, T, C)


class FeedForward(nn.Module):
    """After the positions have talked to one another, each thinks about what it heard, on its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),  # room to compute in: four times as wide, as the paper has it
            nn.ReLU(),
            nn.Linear(4 * config.n_embd, config.n_embd),  # and back, to be added to the residual stream
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.net(x)  # (B, T, C) -> (B, T, 4C) -> (B, T, C)


FeedFoward = FeedForward  # the lecture's spelling


class Block(nn.Module):
    """Communication, then computation.

    Each is added to its input (a residual connection: gradients flow straight through the sum) and
    sees it normalised (layer norm first, so that the sum itself is never squeezed).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sa = MultiHeadAttention(config)
        self.ffwd = FeedForward(config)
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.sa(self.ln1(x))  # (B, T, C)
        x = x + self.ffwd(self.ln2(x))  # (B, T, C)
        return x


class GPTLanguageModel(nn.Module):
    """The decoder-only transformer: what each token is, where it stands, n_layer blocks, and a guess."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding_table = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)
        self.apply(init_weights)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, T) to logits (B, T, V), and the mean loss in nats if `targets` (B, T) are given.

        T may be anything from 1 to block_size.
        """
        T = idx.shape[1]
        tok_emb = self.token_embedding_table(idx)  # (B, T) -> (B, T, C)
        pos_emb = self.position_embedding_table(torch.arange(T, device=idx.device))  # (T) -> (T, C)
        x = tok_emb + pos_emb  # (B, T, C), the same positions added to every row
        x = self.blocks(x)  # (B, T, C)
        x = self.ln_f(x)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, C) -> (B, T, V)
        return logits, next_token_loss(logits, targets)


# What both models share.


def next_token_loss(logits: Tensor, targets: Tensor | None) -> Tensor | None:
    """Mean cross-entropy in nats of the (B, T) `targets` under (B, T, V) `logits`; None without targets."""
    if targets is None:
        return None
    B, T, V = logits.shape
    return F.cross_entropy(logits.view(B * T, V), targets.reshape(B * T))


def init_weights(module: nn.Module) -> None:
    """Small normal weights and zero biases: the first guess is then close to uniform, a loss of ln V."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, mean=0.0, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)

"""The models of the lecture, in the order of the lecture. Read this file from top to bottom.

The first model is a bigram model, which sees one token. The last one is a decoder-only transformer, a GPT.
The models between them are in `studies/ladder/rungs.py`. The code is written to be read: each attention
head is a module of its own, the mask is written out, and a comment beside each line gives the shapes.
The letters in the shapes are:

    B  batch: sequences that are processed together
    T  time: positions in a sequence, from 1 to block_size
    C  channels: n_embd, the size of the vector of each position
    D  head size: n_embd / n_head
    V  vocabulary: the number of different tokens

`training/loop.py` trains these models. `model/gpt.py` computes the same function faster.

Papers: Vaswani et al. 2017, "Attention Is All You Need", for attention and the block; Radford et al. 2019
(GPT-2) for the decoder-only form with layer norm before attention and feed-forward. The names of modules
and parameters are those of Andrej Karpathy's lecture "Let's build GPT", so these
classes load the lecture's weights.
"""

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig, require_model_config

# 1. The baseline.


class BigramLanguageModel(nn.Module):
    """A table with one row for each token: the row holds the logits of the next token.

    The model sees only the last token. Position and earlier tokens make no difference.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = require_model_config(config, type(self).__name__)
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.vocab_size)
        self.apply(init_weights)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Predict the next token at every position.

        Args:
            idx: token ids (B, T), int64.
            targets: the token that follows each of `idx`, (B, T), int64.

        Returns:
            The logits (B, T, V), and the mean loss in nats, or None without `targets`.
        """
        logits = self.token_embedding_table(idx)  # (B, T) -> (B, T, V)
        return logits, compute_next_token_loss(logits, targets)

    def generate(self, idx: Tensor, max_new_tokens: int) -> Tensor:
        """Append `max_new_tokens` sampled tokens to each row of `idx`: (B, T) -> (B, T + max_new_tokens)."""
        return append_sampled_tokens(self, idx, max_new_tokens)


# 2. The parts of the transformer.


class Head(nn.Module):
    """One head of causal self-attention: each position takes a weighted average of itself and the past.

    Each position has three vectors. Its query says what it looks for. Its key says what it contains. Its value is
    what it passes on. The weight of a value grows with the dot product of the query and its key.
    """

    tril: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config = require_model_config(config, type(self).__name__)
        head_size = config.n_embd // config.n_head
        self.key = nn.Linear(config.n_embd, head_size, bias=False)
        self.query = nn.Linear(config.n_embd, head_size, bias=False)
        self.value = nn.Linear(config.n_embd, head_size, bias=False)
        self.register_buffer("tril", torch.tril(torch.ones(config.block_size, config.block_size)))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position to the positions up to it: (B, T, C) -> (B, T, D)."""
        T = x.shape[1]
        k = self.key(x)  # (B, T, C) -> (B, T, D)
        q = self.query(x)  # (B, T, C) -> (B, T, D)
        # The dot product of two random vectors of size D has standard deviation sqrt(D). Divided by sqrt(D),
        # the scores stay small and the softmax does not start by choosing a single position.
        weights = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, T, D) @ (B, D, T) -> (B, T, T)
        # The causal mask: position t attends to positions 0 to t. It must not see the tokens it has to predict.
        weights = weights.masked_fill(self.tril[:T, :T] == 0, float("-inf"))  # (B, T, T)
        weights = F.softmax(weights, dim=-1)  # (B, T, T), each row sums to one
        weights = self.dropout(weights)  # (B, T, T)
        v = self.value(x)  # (B, T, C) -> (B, T, D)
        return weights @ v  # (B, T, T) @ (B, T, D) -> (B, T, D)


class MultiHeadAttention(nn.Module):
    """Several heads in parallel, and a linear layer that mixes their outputs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config = require_model_config(config, type(self).__name__)
        self.heads = nn.ModuleList(Head(config) for _ in range(config.n_head))
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Run all heads, concatenate their outputs and mix them: (B, T, C) -> (B, T, C)."""
        out = torch.cat([head(x) for head in self.heads], dim=-1)  # n_head of (B, T, D) -> (B, T, C)
        return self.dropout(self.proj(out))  # (B, T, C)


class FeedForward(nn.Module):
    """A small network with one hidden layer, applied to each position separately.

    Attention moves information between positions. Feed-forward then processes it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config = require_model_config(config, type(self).__name__)
        self.net = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),  # the hidden layer is four times as wide, as in the paper
            nn.ReLU(),
            nn.Linear(4 * config.n_embd, config.n_embd),  # back to n_embd, so that it can be added to the input
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Process each position: (B, T, C) -> (B, T, C)."""
        return self.net(x)  # (B, T, C) -> (B, T, 4C) -> (B, T, C)


FeedFoward = FeedForward  # the lecture's spelling


class Block(nn.Module):
    """Communication, then computation: attention, then feed-forward.

    Residual connections: each output is added to its input. Gradients pass through the sum unchanged, so that
    deep models can be trained. Layer norm comes before attention and feed-forward: it normalizes what they read.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config = require_model_config(config, type(self).__name__)
        self.sa = MultiHeadAttention(config)
        self.ffwd = FeedForward(config)
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Add the outputs of attention and of feed-forward to the input: (B, T, C) -> (B, T, C)."""
        x = x + self.sa(self.ln1(x))  # (B, T, C)
        x = x + self.ffwd(self.ln2(x))  # (B, T, C)
        return x


# 3. The transformer.


class GPTLanguageModel(nn.Module):
    """The decoder-only transformer: embeddings of token and position, n_layer blocks, and a linear head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = require_model_config(config, type(self).__name__)
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding_table = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)
        self.apply(init_weights)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Predict the next token at every position, from the tokens up to that position.

        Args:
            idx: token ids (B, T), int64, with T from 1 to block_size.
            targets: the token that follows each of `idx`, (B, T), int64.

        Returns:
            The logits (B, T, V), and the mean loss in nats, or None without `targets`.
        """
        T = idx.shape[1]
        tok_emb = self.token_embedding_table(idx)  # (B, T) -> (B, T, C)
        pos_emb = self.position_embedding_table(torch.arange(T, device=idx.device))  # (T) -> (T, C)
        x = tok_emb + pos_emb  # (B, T, C), every row of the batch has the same positions
        x = self.blocks(x)  # (B, T, C)
        x = self.ln_f(x)  # (B, T, C)
        logits = self.lm_head(x)  # (B, T, C) -> (B, T, V)
        return logits, compute_next_token_loss(logits, targets)

    def generate(self, idx: Tensor, max_new_tokens: int) -> Tensor:
        """Append `max_new_tokens` sampled tokens to each row of `idx`: (B, T) -> (B, T + max_new_tokens)."""
        return append_sampled_tokens(self, idx, max_new_tokens)


# 4. Functions that both models use.


def compute_next_token_loss(logits: Tensor, targets: Tensor | None) -> Tensor | None:
    """Return the mean cross-entropy in nats of `targets` (B, T) under `logits` (B, T, V), or None without targets."""
    if targets is None:
        return None
    B, T, V = logits.shape
    return F.cross_entropy(logits.view(B * T, V), targets.reshape(B * T))


@torch.no_grad()
def append_sampled_tokens(model: BigramLanguageModel | GPTLanguageModel, idx: Tensor, max_new_tokens: int) -> Tensor:
    """Sample one token after another from the model's probabilities.

    Call `model.eval()` first if the model has dropout. `torch.manual_seed` makes the result repeatable.
    `minigpt sample` uses `generation/engine.py`, which has temperature, top-k and top-p.

    Args:
        model: a BigramLanguageModel or a GPTLanguageModel.
        idx: the token ids to continue, (B, T), int64, with T at least 1.
        max_new_tokens: the number of tokens to append to each row.

    Returns:
        `idx` and the new tokens, (B, T + max_new_tokens), int64.
    """
    for _ in range(max_new_tokens):
        context = idx[:, -model.config.block_size :]  # the model sees at most block_size tokens
        logits, _ = model(context)  # (B, T, V)
        logits = logits[:, -1, :]  # (B, T, V) -> (B, V), the prediction after the last position
        probabilities = F.softmax(logits, dim=-1)  # (B, V), each row sums to one
        next_token = torch.multinomial(probabilities, num_samples=1)  # (B, V) -> (B, 1)
        idx = torch.cat([idx, next_token], dim=1)  # (B, T) -> (B, T + 1)
    return idx


def init_weights(module: nn.Module) -> None:
    """Draw small normal weights and set biases to zero.

    Small weights make the first prediction nearly uniform. The first loss is then close to ln V.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, mean=0.0, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)

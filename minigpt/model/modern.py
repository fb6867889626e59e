"""The network of the record: a GPT with the ideas of later years. Read `model/lecture.py` and `model/gpt.py` first.

The structure is the lecture's: attention and feed-forward, each added to the residual stream. The docstring of each
class names its idea and its paper. No layer has a bias, and no norm has a gain. The small modules without parameters
come first, then the network from attention to logits.

Shapes: B batch, T time, C channels (n_embd), H heads, D head size (C / H), V vocabulary; S is the number of tokens
that attention sees, the cached ones included.

docs/record.md shows the results, docs/log.md what was tried.
"""

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig, require_model_config
from minigpt.model.gpt import ScaledDotProductAttention
from minigpt.model.kv_cache import KVCache, sample_with_cache
from minigpt.model.lecture import compute_next_token_loss

EPSILON = 1e-6  # added to the mean square, so that RMS norm does not divide a vector of zeros by zero
SLOWEST_ROTATION = 1 / 1024  # radians for each position; the fastest pair rotates by 1 radian
EMBEDDING_LAYER = -1  # the embedding's layer number in the KV cache


class RMSNorm(nn.Module):
    """Scale each vector to a length of sqrt(C): x / sqrt(mean(x^2)).

    Layer norm without the mean, the gain and the bias (Zhang and Sennrich 2019, "Root Mean Square Layer
    Normalization").
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x: (..., C) -> (..., C)."""
        return F.rms_norm(x, x.shape[-1:], eps=EPSILON)


class Rotary(nn.Module):
    """Rotate queries and keys by angles that grow with the position (Su et al. 2021, "RoFormer").

    The dot product of a query and a key then depends on the distance between them, not on their positions.
    """

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate queries and keys (B, T, H, D) at positions (T,)."""
        cos, sin = compute_rotation(positions, q)
        return self.rotate(q, cos, sin), self.rotate(k, cos, sin)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate pairs of numbers, one of the first half of x (..., D) and one of the second, by D / 2 angles."""
        a, b = x.chunk(2, dim=-1)  # (..., D / 2) each
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).type_as(x)


def compute_rotation(positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the angles at positions (T,) for vectors x (..., D): (T, 1, D / 2) each.

    Half of the pairs rotate, at speeds from 1 to 1/1024 radians for each position. Fast pairs distinguish adjacent
    positions. Slow pairs distinguish near positions from far ones. The other half of the pairs has the angle 0, so
    these pairs do not depend on the position.
    """
    D = x.shape[-1]
    rotating = max(1, D // 4)
    dtype = torch.promote_types(x.dtype, torch.float32)  # half precision would round large positions
    speeds = SLOWEST_ROTATION ** torch.linspace(0, 1, rotating, dtype=dtype, device=x.device)  # (D / 4,)
    speeds = F.pad(speeds, (0, D // 2 - rotating))  # (D / 2,)
    angles = torch.outer(positions.to(dtype), speeds)[:, None]  # (T, 1, D / 2)
    return angles.cos(), angles.sin()


class TokenShift(nn.Module):
    """Add to each position a share of the one before it: x_t + weight * x_(t-1).

    Attention then does not need a head that copies the previous position (Peng et al. 2023, "RWKV"; Allen-Zhu 2025,
    "The Magic of Canon Layers").
    """

    def forward(self, x: Tensor, weight: Tensor, previous: Tensor | None = None) -> Tensor:
        """Add weight (C,) times the position before to each position of x (B, T, C): (B, T, C).

        `previous` (B, 1, C) is the position before x. Without it, zeros are used.
        """
        if previous is None:
            previous = torch.zeros_like(x[:, :1])
        before = torch.cat([previous, x[:, :-1]], dim=1)  # (B, T, C)
        return x + before * weight.to(x.dtype)


class SquaredReLU(nn.Module):
    """max(x, 0)^2, steeper than a ReLU where it is not zero (So et al. 2021, "Primer")."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to each number: (...) -> (...)."""
        return F.relu(x).square()


class CausalSelfAttention(nn.Module):
    """Causal self-attention with normalized, rotated queries and keys."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.query, self.key, self.value, self.proj = (
            nn.Linear(config.n_embd, config.n_embd, bias=False) for _ in range(4)
        )
        self.norm = RMSNorm()
        self.rotary = Rotary()
        self.attend = ScaledDotProductAttention()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, cache: KVCache | None = None) -> Tensor:
        """Attend from each position (T,) to the positions up to it: (B, T, C) -> (B, T, C).

        RMS norm gives all queries and all keys the same length. So only their directions decide a score, and no score
        can grow without limit (QK-norm: Henry et al. 2020, "Query-Key Normalization for Transformers").
        """
        B, T, C = x.shape
        heads = (B, T, self.n_head, C // self.n_head)
        q, k, v = self.query(x).view(heads), self.key(x).view(heads), self.value(x).view(heads)  # (B, T, H, D) each
        q, k = self.rotary(self.norm(q), self.norm(k), positions)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, H, T, D) each
        mask = None
        if cache is not None:
            mask = cache.build_mask(T, x.device)  # (T, S)
            k, v = cache.update(self.layer, k, v)  # (B, H, S, D) each
        out = self.attend(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).flatten(2)  # (B, T, C), the heads side by side again
        return self.dropout(self.proj(out))


class FeedForward(nn.Module):
    """A network with one hidden layer, four times as wide, applied to each position and the one before it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.token_shift_weight = nn.Parameter(torch.zeros(config.n_embd))
        self.shift = TokenShift()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.activate = SquaredReLU()
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Process each position: (B, T, C) -> (B, T, C)."""
        previous = None if cache is None else cache.swap_shift_input(self.layer, x)  # (B, 1, C)
        x = self.shift(x, self.token_shift_weight, previous)
        x = self.activate(self.up(x))  # (B, T, 4C)
        return self.dropout(self.down(x))


class Block(nn.Module):
    """Communication, then computation: attention, then feed-forward, each added to its input."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.attention = CausalSelfAttention(config, layer)
        self.ffwd = FeedForward(config, layer)

    def forward(self, x: Tensor, positions: Tensor, cache: KVCache | None = None) -> Tensor:
        """Add the outputs of attention and of feed-forward to the input: (B, T, C) -> (B, T, C)."""
        x = x + self.attention(self.norm(x), positions, cache)
        return x + self.ffwd(self.norm(x), cache)


class Modern(nn.Module):
    """A decoder-only transformer with rotary embedding, QK-norm, squared ReLU, RMS norm and token shift."""

    blocks: "Sequence[Block]"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = require_model_config(config, type(self).__name__)
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.token_shift_weight = nn.Parameter(torch.zeros(config.n_embd))
        self.shift = TokenShift()
        self.norm = RMSNorm()
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))  # type: ignore[assignment]
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(_init_modern_weights)
        zero_output_layers(self)

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the next token at every position, from the tokens up to that position.

        Args:
            idx: token ids (B, T), int64. With the cached tokens they are at most block_size.
            targets: the token that follows each of `idx`, (B, T), int64.
            cache: keys and values of the tokens before `idx`. The keys and values of `idx` are added to it.

        Returns:
            The logits (B, T, V), or with a cache and no targets those of the last position, (B, 1, V); and the mean
            loss in nats, or None without targets.
        """
        T = idx.shape[1]
        positions = torch.arange(T, device=idx.device) if cache is None else cache.get_positions(T, idx.device)  # (T,)
        x = self.token_embedding_table(idx)  # (B, T, C)
        previous = None if cache is None else cache.swap_shift_input(EMBEDDING_LAYER, x)  # (B, 1, C)
        x = self.norm(self.shift(x, self.token_shift_weight, previous))  # (B, T, C)
        for block in self.blocks:
            x = block(x, positions, cache)  # (B, T, C)
        if cache is not None:
            cache.advance(T)
            if targets is None:
                x = x[:, -1:]  # (B, 1, C)
        logits = self.lm_head(self.norm(x))  # (B, T, V)
        return logits, compute_next_token_loss(logits, targets)

    def generate(self, idx: Tensor, max_new_tokens: int) -> Tensor:
        """Append `max_new_tokens` sampled tokens to each row of `idx`: (B, T) -> (B, T + max_new_tokens).

        `generation/engine.py` has temperature, top-k and top-p. `minigpt sample` uses it.
        """
        return sample_with_cache(self, idx, max_new_tokens)


def _init_modern_weights(module: nn.Module) -> None:
    """Draw matrices that keep the length of a vector, and embeddings with a small standard deviation.

    A norm follows the embedding, so its length does not change the output. But AdamW's step has a fixed size, so it
    changes a short embedding more: a short embedding learns faster.
    """
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.2)
    if isinstance(module, nn.Linear):
        nn.init.uniform_(module.weight, -((3 / module.in_features) ** 0.5), (3 / module.in_features) ** 0.5)


def zero_output_layers(model: Modern) -> None:
    """Set the output layers of attention, of feed-forward and of the model to zero.

    At the start the blocks add nothing to the residual stream, and all tokens are equally likely. The gradients of the
    first steps pass unchanged through any number of blocks (Bachlechner et al. 2020, "ReZero"; Yang et al. 2022,
    "Tensor Programs V").
    """
    output_weights = [model.lm_head.weight]
    for block in model.blocks:
        output_weights += [block.attention.proj.weight, block.ffwd.down.weight]
    for weight in output_weights:
        nn.init.zeros_(weight)

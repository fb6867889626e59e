"""The network of the record: a GPT after some more years of ideas; read model/lecture.py first, then this file.

The frame is the lecture's, communication and computation added to one stream. What is new, idea by idea, stands
where it is used, with where it comes from. There are no biases and no gains: a norm follows wherever they would
matter. As in model/gpt.py the batch is one long list of positions, (B * T, C). B, T, C, D and V are the
lecture's, H is the number of heads.

docs/record.md has what comes of it, docs/log.md what was tried.
"""

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.kernels.causal_attention import causal_attention
from minigpt.kernels.elementwise import dropout, rms_norm, rotate, squared_relu, token_shift
from minigpt.kernels.onednn_linear import Linear
from minigpt.model.lecture import next_token_loss

SLOWEST = 1 / 1024  # radians that the slowest pair of numbers turns from one position to the next; the fastest, 1


class Attention(nn.Module):
    """Causal self-attention that knows how far away everything is, and whose scores cannot grow without end."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.query, self.key, self.value, self.proj = (
            Linear(config.n_embd, config.n_embd, bias=False) for _ in range(4)
        )

    def heads(self, x: Tensor, T: int, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head, (B, H, T, D) each, from (B * T, C), at positions from `start` on.

        Queries and keys are of one length, so that their agreement is a matter of direction alone and no score can
        drown the others (QK-norm: Henry et al. 2020, "Query-Key Normalization for Transformers"). Then each is turned
        by an angle that grows with its position, so that how well two agree depends on how far they are apart, not on
        where they are (rotary positions: Su et al. 2021, "RoFormer").
        """
        H, D = self.n_head, x.shape[1] // self.n_head
        q, k, v = (part(x).view(-1, T, H, D) for part in (self.query, self.key, self.value))
        turn = angles(start, T, D, x)
        q, k = (rotate(rms_norm(part), *turn) for part in (q, k))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, T: int) -> Tensor:
        """(B * T, C) to (B * T, C)."""
        return self.mix(causal_attention(*self.heads(x, T)))

    def mix(self, gathered: Tensor) -> Tensor:
        """What the heads gathered, (B, H, T, D), side by side again and projected: (B * T, C)."""
        out = self.proj(gathered.transpose(1, 2).flatten(2).flatten(0, 1))
        return dropout(out, self.dropout, self.training)


def angles(start: int, T: int, D: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, (T, 1, D / 2), by which positions from `start` on turn each pair of numbers.

    Half of them turn, some fast, which tells neighbours apart, some slowly, which tells near from far; the others
    stay, for what does not depend on distance.
    """
    many = max(1, D // 4)
    exact = torch.promote_types(like.dtype, torch.float32)  # half precision rounds large positions
    turning = SLOWEST ** torch.linspace(0, 1, many, dtype=exact, device=like.device)  # (D / 4,)
    turning = F.pad(turning, (0, D // 2 - many))  # (D / 2,)
    positions = torch.arange(start, start + T, dtype=exact, device=like.device)
    turned = torch.outer(positions, turning)[:, None]  # (T, 1, D / 2)
    return turned.cos(), turned.sin()


class FeedForward(nn.Module):
    """Each position and the one before it: four times as wide, a nonlinearity, and back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.before = nn.Parameter(torch.zeros(config.n_embd))
        self.up = Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.down = Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, T: int) -> Tensor:
        """(B * T, C) to (B * T, C).

        Each of the C numbers has a learned share of what it was one position ago added, so that attention need not
        fetch what is next door (token shift: Peng et al. 2023, "RWKV"; Allen-Zhu 2025, "The Magic of Canon Layers").
        """
        return self.compute(token_shift(x.view(-1, T, x.shape[1]), self.before).flatten(0, 1))

    def compute(self, x: Tensor) -> Tensor:
        """What comes of that, (B * T, C) to (B * T, C)."""
        x = squared_relu(self.up(x))  # (B * T, 4C)
        return dropout(self.down(x), self.dropout, self.training)


class Block(nn.Module):
    """Communication, then computation, each added to what is there.

    Each sees the stream at a length of its own, RMS norm (Zhang and Sennrich 2019, "Root Mean Square Layer
    Normalization"): layer norm without the mean, the gain and the bias, none of which is missed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.ffwd = FeedForward(config)

    def forward(self, x: Tensor, T: int) -> Tensor:
        """(B * T, C) to (B * T, C)."""
        x = x + self.attention(rms_norm(x), T)
        return x + self.ffwd(rms_norm(x), T)


class Modern(nn.Module):
    """A decoder-only transformer with better ideas."""

    blocks: "Sequence[Block]"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        V, C = config.vocab_size, config.n_embd
        self.token_embedding_table = nn.Embedding(V, C)
        self.before = nn.Parameter(torch.zeros(C))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))  # type: ignore[assignment]
        self.lm_head = Linear(C, V, bias=False)
        self.apply(init_weights)
        init_silent(self)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, T) to logits (B, T, V), and the mean loss in nats if `targets` (B, T) are given.

        T may be anything from 1 to block_size.
        """
        B, T = idx.shape
        x = self.embed(idx)  # (B * T, C)
        for block in self.blocks:
            x = block(x, T)  # (B * T, C)
        logits = self.head(x).view(B, T, -1)  # (B, T, V)
        return logits, next_token_loss(logits, targets)

    def embed(self, idx: Tensor) -> Tensor:
        """What each token is, with shares of what the one before it is: ids (B, T) to (B * T, C).

        This token shift brings neighbours together before the first block. Before a window's first token is nothing.
        """
        return rms_norm(token_shift(self.token_embedding_table(idx), self.before).flatten(0, 1))

    def head(self, x: Tensor) -> Tensor:
        """The blocks' output (N, C) to logits (N, V)."""
        return self.lm_head(rms_norm(x))


def init_weights(module: nn.Module) -> None:
    """Matrices that keep a vector's length, and embeddings so short that they learn fast.

    A norm follows them, so their length as such means nothing; but a step of AdamW is as long for short ones.
    """
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.2)
    if isinstance(module, nn.Linear):
        nn.init.uniform_(module.weight, -((3 / module.in_features) ** 0.5), (3 / module.in_features) ** 0.5)


def init_silent(model: Modern) -> None:
    """Zero all that writes: blocks add nothing to the stream yet; all tokens are as likely.

    So the gradients of the first steps flow straight through, however deep the network (zero-initialised projections:
    Bachlechner et al. 2020, "ReZero"; Yang et al. 2022, "Tensor Programs V").
    """
    silent = [model.lm_head.weight]
    for block in model.blocks:
        silent += [block.attention.proj.weight, block.ffwd.down.weight]
    for weight in silent:
        nn.init.zeros_(weight)

"""GPT for running: the lecture's function and GPT-2's, as few and as large operations as PyTorch allows.

Read model/lecture.py first: with the same weights this is the same function, logits and gradients. What
differs is how it is computed. All heads are one matrix, as are queries, keys and values; attention is one
call that never forms the (T, T) weights where it can avoid them; and the batch is one long list of
positions, (B * T, C), since only attention cares which window a position is in. GPT-2 (Radford et al.
2019) is this function with a bias on queries, keys and values, a GELU, and the token embedding's own table
as the last layer, which has no bias then. B, T, C, D and V are the lecture's, H is the number of heads.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Self

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.kernels.onednn_linear import Linear, linear
from minigpt.model.lecture import init_weights, next_token_loss


class Attention(nn.Module):
    """Causal self-attention, all heads at once."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qkv = Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.proj = Linear(config.n_embd, config.n_embd)

    def heads(self, x: Tensor, T: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head, (B, H, T, D) each, from (B * T, C)."""
        B, C = x.shape[0] // T, x.shape[1]
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).unbind(2)  # each (B, T, H, D)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, T: int) -> Tensor:
        """(B * T, C) to (B * T, C)."""
        q, k, v = self.heads(x, T)
        out = F.scaled_dot_product_attention(  # (B, H, T, D)
            q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        return self.mix(out)

    def mix(self, gathered: Tensor) -> Tensor:
        """What the heads gathered, (B, H, T, D), side by side again and projected: (B * T, C)."""
        B, H, T, D = gathered.shape
        out = self.proj(gathered.transpose(1, 2).reshape(B * T, H * D))
        return F.dropout(out, self.dropout, self.training)


class FeedForward(nn.Module):
    """Each position on its own: four times as wide, a nonlinearity, and back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.dropout = config.dropout
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(B * T, C) to (B * T, C)."""
        x = self.up(x)  # (B * T, 4C)
        x = F.relu(x, inplace=True) if self.activation == "relu" else F.gelu(x, approximate="tanh")
        return F.dropout(self.down(x), self.dropout, self.training)


class Block(nn.Module):
    """Communication, then computation, each added to what is there."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.ffwd = FeedForward(config)

    def forward(self, x: Tensor, T: int) -> Tensor:
        """(B * T, C) to (B * T, C)."""
        x = x + self.attention(self.ln1(x), T)
        return x + self.ffwd(self.ln2(x))


class GPT(nn.Module):
    """The decoder-only transformer, fast."""

    blocks: "Sequence[Block]"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding_table = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))  # type: ignore[assignment]
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = None if config.tied_head else Linear(config.n_embd, config.vocab_size)
        self.apply(init_weights)

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

    def embed(self, idx: Tensor, start: int = 0) -> Tensor:
        """What each token is and where it stands: ids (B, T) at positions from `start` on to (B * T, C)."""
        positions = self.position_embedding_table.weight[start : start + idx.shape[1]]  # (T, C)
        return (F.embedding(idx, self.token_embedding_table.weight) + positions).flatten(0, 1)

    def head(self, x: Tensor) -> Tensor:
        """The blocks' output (N, C) to logits (N, V)."""
        x = self.ln_f(x)
        return linear(x, self.token_embedding_table.weight) if self.lm_head is None else self.lm_head(x)

    @classmethod
    def from_lecture(cls, weights: Mapping[str, Tensor], dropout: float = 0.0) -> Self:
        """The same function as the lecture's GPTLanguageModel with these weights, its `state_dict`.

        Everything but the dropout follows from them. Raises KeyError for one that is missing.
        """
        heads = {name for name in weights if re.fullmatch(r"blocks\.0\.sa\.heads\.\d+\.query\.weight", name)}
        layers = {name for name in weights if re.fullmatch(r"blocks\.\d+\.ln1\.weight", name)}
        tokens, positions = weights["token_embedding_table.weight"], weights["position_embedding_table.weight"]
        config = ModelConfig(
            vocab_size=len(tokens),
            block_size=len(positions),
            n_embd=tokens.shape[1],
            n_head=len(heads),
            n_layer=len(layers),
            dropout=dropout,
        )
        with torch.random.fork_rng(devices=[]):  # it will not keep the weights that it draws
            model = cls(config).to(tokens)
        model.load_state_dict(fused(weights, config))
        return model

    def to_lecture(self) -> dict[str, Tensor]:
        """The `state_dict` of the lecture's GPTLanguageModel that is the same function.

        Raises ValueError for a model with what the lecture's doesn't have: a bias on queries, keys and
        values, a GELU, or a tied head.
        """
        return split(self.state_dict(), self.config)


# The same weights under the lecture's names and under these.

RENAMED = {".sa.proj.": ".attention.proj.", ".ffwd.net.0.": ".ffwd.up.", ".ffwd.net.2.": ".ffwd.down."}
HEAD = "blocks.{layer}.sa.heads.{head}.{part}.weight"
PARTS = ("query", "key", "value")


def fused(lecture: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The lecture's weights under GPT's names: the heads' matrices in one, queries first, then keys, then values."""
    weights = {}
    for name, tensor in lecture.items():
        if ".heads." not in name:
            for theirs, ours in RENAMED.items():
                name = name.replace(theirs, ours)
            weights[name] = tensor
    for layer in range(config.n_layer):
        rows = [lecture[HEAD.format(layer=layer, head=h, part=p)] for p in PARTS for h in range(config.n_head)]
        weights[f"blocks.{layer}.attention.qkv.weight"] = torch.cat(rows)  # 3H of (D, C) -> (3C, C)
    return weights


def split(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """GPT's weights under the lecture's names: what `fused` undoes."""
    if not config.is_lecture:
        raise ValueError("the lecture's model has no qkv_bias, no other activation than relu and no tied_head")
    lecture = {}
    for name, tensor in weights.items():
        if not name.endswith("qkv.weight"):
            for theirs, ours in RENAMED.items():
                name = name.replace(ours, theirs)
            lecture[name] = tensor
    mask = weights["ln_f.weight"].new_ones(config.block_size, config.block_size).tril()
    for layer in range(config.n_layer):
        rows = iter(weights[f"blocks.{layer}.attention.qkv.weight"].split(config.n_embd // config.n_head))
        for part in PARTS:
            for head in range(config.n_head):
                lecture[HEAD.format(layer=layer, head=head, part=part)] = next(rows).clone()
        lecture |= {f"blocks.{layer}.sa.heads.{head}.tril": mask.clone() for head in range(config.n_head)}
    return lecture

"""GPT, the fast implementation: the lecture's model and GPT-2 in few large operations.

Read `model/lecture.py` first. With the same weights this model computes the same logits and gradients. One matrix
computes the queries, keys and values of all heads. PyTorch's fused attention does not store the (T, T) weights. With a
KV cache the model reads each token of a growing text once.

With `qkv_bias`, `activation="gelu"` and `tied_head` the model is GPT-2 (Radford et al. 2019): queries, keys and values
have a bias, the nonlinearity is GELU, and the last layer is the token embedding table, without a bias.
`exchange/huggingface_import.py` loads GPT-2's weights. GPT-2 approximates GELU by a tanh; `activation="gelu_exact"`
does not.

Shapes: B batch, T time, C channels (n_embd), H heads, D head size (C / H), V vocabulary; S is the number of tokens
that attention sees, the cached ones included.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Self

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig, require_model_config
from minigpt.model.kv_cache import KVCache, sample_with_cache
from minigpt.model.lecture import compute_next_token_loss, init_weights


class ScaledDotProductAttention(nn.Module):
    """Scaled dot-product attention: each position takes a weighted average of the values up to its own."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from T positions to S: queries (B, H, T, D), keys and values (B, H, S, D) -> (B, H, T, D).

        `mask` (T, S) is True where a query may see a position. Without a mask, either S equals T (a causal mask is
        used), or T is 1 (the query sees all positions).
        """
        dropout = self.dropout if self.training else 0.0
        is_causal = mask is None and q.shape[2] > 1
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)


class CausalSelfAttention(nn.Module):
    """Causal self-attention, all heads at once."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.attend = ScaledDotProductAttention(config.dropout)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Attend from each position to the positions up to it: (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)  # (B, T, 3, H, D)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, H, T, D) each
        mask = None
        if cache is not None:
            mask = cache.build_mask(T, x.device)  # (T, S)
            k, v = cache.update(self.layer, k, v)  # (B, H, S, D) each
        out = self.attend(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # the heads side by side again
        return self.dropout(self.proj(out))


class FeedForward(nn.Module):
    """A network with one hidden layer, four times as wide, applied to each position separately."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Process each position: (B, T, C) -> (B, T, C)."""
        x = self.up(x)  # (B, T, 4C)
        if self.activation == "relu":
            x = F.relu(x)
        else:
            x = F.gelu(x, approximate="tanh" if self.activation == "gelu" else "none")
        return self.dropout(self.down(x))


class Block(nn.Module):
    """Communication, then computation: attention, then feed-forward, each added to its input."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.attention = CausalSelfAttention(config, layer)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.ffwd = FeedForward(config)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Add the outputs of attention and of feed-forward to the input: (B, T, C) -> (B, T, C)."""
        x = x + self.attention(self.ln1(x), cache)
        return x + self.ffwd(self.ln2(x))


class FunctionalLinear(nn.Module):
    """`F.linear` as a module without parameters: the caller passes the weight.

    `acceleration.accelerate` can replace this module by a kernel.
    """

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply x (..., I) by the transpose of weight (O, I) and add bias (O,): (..., O)."""
        return F.linear(x, weight, bias)


class GPT(nn.Module):
    """The decoder-only transformer: embeddings of token and position, n_layer blocks, and a linear head."""

    blocks: "Sequence[Block]"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = require_model_config(config, type(self).__name__)
        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding_table = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))  # type: ignore[assignment]
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = None if config.tied_head else nn.Linear(config.n_embd, config.vocab_size)
        self.head_product = FunctionalLinear()  # multiplies by the token embedding if config.tied_head
        self.apply(init_weights)

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
        x = self.token_embedding_table(idx) + self.position_embedding_table(positions)  # (B, T, C)
        for block in self.blocks:
            x = block(x, cache)  # (B, T, C)
        if cache is not None:
            cache.advance(T)
            if targets is None:
                x = x[:, -1:]  # (B, 1, C)
        x = self.ln_f(x)
        table = self.token_embedding_table.weight  # (V, C)
        logits = self.head_product(x, table) if self.lm_head is None else self.lm_head(x)  # (B, T, V)
        return logits, compute_next_token_loss(logits, targets)

    def generate(self, idx: Tensor, max_new_tokens: int) -> Tensor:
        """Append `max_new_tokens` sampled tokens to each row of `idx`: (B, T) -> (B, T + max_new_tokens).

        `generation/engine.py` has temperature, top-k and top-p. `minigpt sample` uses it.
        """
        return sample_with_cache(self, idx, max_new_tokens)

    @classmethod
    def from_lecture(cls, weights: Mapping[str, Tensor], dropout: float = 0.0) -> Self:
        """Build the GPT that computes the same function as the lecture's GPTLanguageModel.

        Args:
            weights: the `state_dict` of the lecture's model. The shape of the GPT follows from it.
            dropout: the probability that dropout sets a number to zero in training.

        Raises:
            KeyError: a weight is missing.
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
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
            model = cls(config).to(tokens)
        model.load_state_dict(join_heads(weights, config))
        return model

    def to_lecture(self) -> dict[str, Tensor]:
        """Return the `state_dict` of the lecture's GPTLanguageModel that computes the same function.

        Raises:
            ValueError: the model has a bias on queries, keys and values, a GELU or a tied head.
        """
        return _split_heads(self.state_dict(), self.config)


# Conversion between the lecture's and GPT's names of the weights.

_LECTURE_TO_GPT = {".sa.proj.": ".attention.proj.", ".ffwd.net.0.": ".ffwd.up.", ".ffwd.net.2.": ".ffwd.down."}
_HEAD = "blocks.{layer}.sa.heads.{head}.{part}.weight"
_PARTS = ("query", "key", "value")


def join_heads(lecture: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Rename the lecture's weights, and join the matrices of all heads: first queries, then keys, then values."""
    weights = {}
    for name, tensor in lecture.items():
        if ".heads." not in name:
            for lecture_name, gpt_name in _LECTURE_TO_GPT.items():
                name = name.replace(lecture_name, gpt_name)
            weights[name] = tensor
    for layer in range(config.n_layer):
        rows = [lecture[_HEAD.format(layer=layer, head=h, part=p)] for p in _PARTS for h in range(config.n_head)]
        weights[f"blocks.{layer}.attention.qkv.weight"] = torch.cat(rows)  # 3H of (D, C) -> (3C, C)
    return weights


def _split_heads(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Convert GPT's weights to the lecture's names, with one matrix for each head: the inverse of `join_heads`."""
    if not config.is_lecture:
        raise ValueError("the lecture's model has no qkv_bias, no other activation than relu and no tied_head")
    lecture = {}
    for name, tensor in weights.items():
        if not name.endswith("qkv.weight"):
            for lecture_name, gpt_name in _LECTURE_TO_GPT.items():
                name = name.replace(gpt_name, lecture_name)
            lecture[name] = tensor
    mask = weights["ln_f.weight"].new_ones(config.block_size, config.block_size).tril()
    for layer in range(config.n_layer):
        rows = iter(weights[f"blocks.{layer}.attention.qkv.weight"].split(config.n_embd // config.n_head))
        for part in _PARTS:
            for head in range(config.n_head):
                lecture[_HEAD.format(layer=layer, head=head, part=part)] = next(rows).clone()
        lecture |= {f"blocks.{layer}.sa.heads.{head}.tril": mask.clone() for head in range(config.n_head)}
    return lecture

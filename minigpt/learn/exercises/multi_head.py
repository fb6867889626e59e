"""Exercise 9: multi-head attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.learn.exercise import Exercise, Mistake
from minigpt.learn.modules import MODULE_IMPORTS, make_dropout_case, make_layer_cases
from minigpt.model.lecture import Head, MultiHeadAttention

TEXT = """
One head can look for one thing at a time. Several small heads look for several things in parallel. Each of them has
the size n_embd / n_head. Their outputs, side by side, are n_embd numbers again. A linear layer, the projection, mixes
them: without it, each number would come from one head only.

    x (B, T, C) ──┬─ head 0 ─ (B, T, D) ─┐
                  ├─ head 1 ─ (B, T, D) ─┼─ side by side (B, T, C) ─ proj ─ dropout ─ (B, T, C)
                  └─ head 2 ─ (B, T, D) ─┘

Write `__init__` and `forward`. The names matter, because the check loads weights by name:
    self.heads     an nn.ModuleList of config.n_head times Head(config)
    self.proj      nn.Linear from n_embd to n_embd
    self.dropout   nn.Dropout(config.dropout), after the projection
"""

EXPERIMENT = """
torch.manual_seed(0)
for n_head in (1, 2, 4, 8):
    attention = MultiHeadAttention(ModelConfig(n_embd=32, n_head=n_head, block_size=8))
    count = sum(p.numel() for p in attention.parameters())
    out = attention(torch.randn(2, 8, 32))
    print(f"{n_head} heads of size {32 // n_head:>2}: {count:,} parameters, output {tuple(out.shape)}")
"""


class _WithoutProjection(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(torch.cat([head(x) for head in self.heads], dim=-1))


class _ProjectionNotMade(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(config) for _ in range(config.n_head))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([head(x) for head in self.heads], dim=-1)


class _Interleaved(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.proj(torch.stack([head(x) for head in self.heads], dim=-1).flatten(2)))


class _Reversed(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.proj(torch.cat([head(x) for head in reversed(self.heads)], dim=-1)))


class _FirstHeadOnly(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.proj(torch.cat([self.heads[0](x)] * len(self.heads), dim=-1)))


class _MeanOfHeads(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        mean = sum(head(x) for head in self.heads) / len(self.heads)
        return self.dropout(self.proj(torch.cat([mean] * len(self.heads), dim=-1)))


class _OneAfterAnother(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.proj(torch.cat([head(x) for head in self.heads], dim=1)))


class _ProjectionOfInput(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(torch.cat([head(self.proj(x)) for head in self.heads], dim=-1))


class _WithResidual(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _DropoutAlways(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([head(x) for head in self.heads], dim=-1)
        return F.dropout(self.proj(out), self.dropout.p)


class _NoDropout(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


class _SumOfHeads(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.proj(sum(head(x) for head in self.heads)))


class _Chained(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        for head in self.heads:
            x = head(x)
        return self.dropout(self.proj(x))


EXERCISE = Exercise(
    text=TEXT,
    imports=MODULE_IMPORTS,
    parts=("Head",),
    references=(MultiHeadAttention,),
    cases=(*make_layer_cases(MultiHeadAttention), make_dropout_case(MultiHeadAttention)),
    mistakes=tuple(
        Mistake(when, {"MultiHeadAttention": variant})
        for when, variant in (
            ("the projection is made but not used", _WithoutProjection),
            ("the projection is missing", _ProjectionNotMade),
            ("the numbers of the heads are interleaved (stack) instead of side by side (cat)", _Interleaved),
            ("the heads are in the reverse order", _Reversed),
            ("all outputs come from the first head", _FirstHeadOnly),
            ("the outputs of the heads are averaged instead of placed side by side", _MeanOfHeads),
            ("the heads are joined along the time (dim=1) instead of the channels (dim=-1)", _OneAfterAnother),
            ("the projection comes before the heads instead of after them", _ProjectionOfInput),
            ("the input is added already here; the residual connection belongs to the block", _WithResidual),
            ("dropout is left on in evaluation: use nn.Dropout, not F.dropout", _DropoutAlways),
            ("dropout is missing after the projection", _NoDropout),
            ("the outputs of the heads are added up instead of placed side by side", _SumOfHeads),
            ("each head reads a part of x, or the output of the head before it, instead of x", _Chained),
        )
    ),
    hints=(
        "nn.ModuleList(Head(config) for _ in range(config.n_head)) registers the heads, so that they are trained.",
        "torch.cat([head(x) for head in self.heads], dim=-1) puts the outputs side by side.",
        "self.proj = nn.Linear(config.n_embd, config.n_embd); return self.dropout(self.proj(out)).",
    ),
    experiment=EXPERIMENT,
)

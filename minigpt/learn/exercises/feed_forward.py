"""Exercise 10: feed-forward."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.learn.exercise import Exercise, Mistake
from minigpt.learn.modules import (
    MODULE_IMPORTS,
    make_dropout_case,
    make_layer_cases,
)
from minigpt.model.lecture import FeedForward

TEXT = """
Attention moves information between positions. Feed-forward then computes with it, at each position separately: a
linear layer to four times the width, a nonlinearity, and a linear layer back.

    x (B, T, C) ─ Linear ─ (B, T, 4C) ─ ReLU ─ (B, T, 4C) ─ Linear ─ (B, T, C) ─ Dropout

Without the ReLU two linear layers would be one linear layer: nothing would be gained.

Write `__init__` and `forward`. self.net is an nn.Sequential of four modules, in the order of the picture.
"""

EXPERIMENT = """
torch.manual_seed(0)
net = FeedForward(ModelConfig(n_embd=8, n_head=1))
x = torch.randn(1, 4, 8)
changed = x.clone()
changed[0, 2] += 1  # change one position only
print("output changes at positions", (net(x) != net(changed)).any(dim=-1)[0].nonzero().flatten().tolist())
print("parameters:", sum(p.numel() for p in net.parameters()), "= 2 * 8 * 32 + 32 + 8")
"""


def _make_feed_forward(compute: Callable[[Any, Tensor], Tensor]) -> type[FeedForward]:
    """Return a FeedForward whose forward is `compute(net, x)`."""

    class Wrong(FeedForward):
        def forward(self, x: Tensor) -> Tensor:
            return compute(self.net, x)

    return Wrong


class _NarrowFeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.net = nn.Sequential(nn.Linear(C, C), nn.ReLU(), nn.Linear(C, C), nn.Dropout(config.dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _OneLayer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(config.n_embd, config.n_embd), nn.ReLU(), nn.Dropout(config.dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


EXERCISE = Exercise(
    text=TEXT,
    imports=MODULE_IMPORTS,
    references=(FeedForward,),
    cases=(*make_layer_cases(FeedForward), make_dropout_case(FeedForward)),
    mistakes=tuple(
        Mistake(when, {"FeedForward": variant})
        for when, variant in (
            ("the ReLU is missing", _make_feed_forward(lambda net, x: net[2](net[0](x)))),
            (
                "the ReLU comes after the second layer instead of between the two",
                _make_feed_forward(lambda net, x: F.relu(net[2](net[0](x)))),
            ),
            (
                "there is a second ReLU after the second layer",
                _make_feed_forward(lambda net, x: F.relu(net[2](F.relu(net[0](x))))),
            ),
            ("the nonlinearity is GELU instead of ReLU", _make_feed_forward(lambda net, x: net[2](F.gelu(net[0](x))))),
            ("the nonlinearity is tanh instead of ReLU", _make_feed_forward(lambda net, x: net[2](net[0](x).tanh()))),
            (
                "the input is added already here; the residual connection belongs to the block",
                _make_feed_forward(lambda net, x: x + net(x)),
            ),
            (
                "dropout is left on in evaluation: use nn.Dropout, not F.dropout",
                _make_feed_forward(lambda net, x: F.dropout(net[:3](x), net[3].p)),
            ),
            ("dropout is missing at the end", _make_feed_forward(lambda net, x: net[:3](x))),
            ("the hidden layer is n_embd wide instead of four times as wide", _NarrowFeedForward),
            ("there is only one linear layer", _OneLayer),
        )
    ),
    hints=(
        "nn.Sequential(first, second, ...) runs modules one after another.",
        "The first is nn.Linear(config.n_embd, 4 * config.n_embd), the second nn.ReLU().",
        "The third leads back to n_embd, the fourth is nn.Dropout(config.dropout). forward returns self.net(x).",
    ),
    experiment=EXPERIMENT,
)

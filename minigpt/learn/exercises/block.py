"""Exercise 11: residual connections and layer norm."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from minigpt.learn.exercise import Exercise, Mistake
from minigpt.learn.modules import (
    MODULE_IMPORTS,
    make_layer_cases,
)
from minigpt.model.lecture import Block

TEXT = """
A block is attention, then feed-forward. Two ideas make it possible to stack many blocks.

Residual connections: the output of each part is added to its input. In the backward pass a sum passes the gradient on
unchanged, so it reaches the first block.

Layer norm: what a part reads has mean 0 and variance 1 at each position. The norm stands before the part ("pre-norm"),
inside the branch. The sums themselves are not normalized.

    x ──┬───────────────────────(+)──┬─────────────────────────(+)── out
        └─ ln1 ─ sa (attention) ─┘   └─ ln2 ─ ffwd (feed-f.) ───┘

Write `__init__` and `forward`. The names: self.sa, self.ffwd, self.ln1, self.ln2 (nn.LayerNorm of n_embd).
"""

EXPERIMENT = """
config = ModelConfig(n_embd=32, n_head=4, block_size=8)
ways = {
    "your block": lambda block, x: block(x),
    "attention and feed-forward alone": lambda block, x: block.ffwd(block.sa(x)),
}
for name, compute in ways.items():
    torch.manual_seed(0)
    blocks = [Block(config) for _ in range(12)]
    x = torch.randn(4, 8, 32)
    for block in blocks:
        x = compute(block, x)
    x.square().mean().backward()
    norms = [sum(p.grad.square().sum() for p in b.sa.parameters()).sqrt().item() for b in blocks]
    print(f"{name}: the gradient of the first block is {norms[0] / norms[-1]:.2g} times that of the last")
"""


def _make_block(compute: Callable[[Any, Tensor], Tensor]) -> type[Block]:
    """Return a Block whose forward is `compute(block, x)`."""

    class Wrong(Block):
        def forward(self, x: Tensor) -> Tensor:
            return compute(self, x)

    return Wrong


def _post_norm(block: Any, x: Tensor) -> Tensor:
    x = block.ln1(x + block.sa(x))
    return block.ln2(x + block.ffwd(x))


def _norm_of_output(block: Any, x: Tensor) -> Tensor:
    x = x + block.ln1(block.sa(x))
    return x + block.ln2(block.ffwd(x))


def _no_norm(block: Any, x: Tensor) -> Tensor:
    x = x + block.sa(x)
    return x + block.ffwd(x)


def _residual_of_normalized(block: Any, x: Tensor) -> Tensor:
    x = block.ln1(x)
    x = x + block.sa(x)
    x = block.ln2(x)
    return x + block.ffwd(x)


def _only_first_residual(block: Any, x: Tensor) -> Tensor:
    return block.ffwd(block.ln2(x + block.sa(block.ln1(x))))


def _only_second_residual(block: Any, x: Tensor) -> Tensor:
    x = block.sa(block.ln1(x))
    return x + block.ffwd(block.ln2(x))


def _wrong_order(block: Any, x: Tensor) -> Tensor:
    x = x + block.ffwd(block.ln2(x))
    return x + block.sa(block.ln1(x))


def _first_norm_twice(block: Any, x: Tensor) -> Tensor:
    x = x + block.sa(block.ln1(x))
    return x + block.ffwd(block.ln1(x))


def _norms_exchanged(block: Any, x: Tensor) -> Tensor:
    x = x + block.sa(block.ln2(x))
    return x + block.ffwd(block.ln1(x))


def _right(block: Any, x: Tensor) -> Tensor:
    x = x + block.sa(block.ln1(x))
    return x + block.ffwd(block.ln2(x))


EXERCISE = Exercise(
    text=TEXT,
    imports=MODULE_IMPORTS,
    parts=("MultiHeadAttention", "FeedForward"),
    references=(Block,),
    cases=make_layer_cases(Block),
    mistakes=tuple(
        Mistake(when, {"Block": _make_block(compute)})
        for when, compute in (
            (
                "the residual connections are missing",
                lambda block, x: block.ffwd(block.ln2(block.sa(block.ln1(x)))),
            ),
            ("only attention has a residual connection, feed-forward has none", _only_first_residual),
            ("only feed-forward has a residual connection, attention has none", _only_second_residual),
            ("the layer norms come after the sums: post-norm instead of pre-norm", _post_norm),
            ("each layer norm comes after its part instead of before it", _norm_of_output),
            ("the layer norms are missing", _no_norm),
            ("the normalized input is added, instead of the input itself", _residual_of_normalized),
            ("feed-forward comes before attention", _wrong_order),
            (
                "feed-forward reads the block's input instead of the sum after attention",
                lambda block, x: x + block.sa(block.ln1(x)) + block.ffwd(block.ln2(x)),
            ),
            (
                "the second sum adds the block's input instead of the sum after attention",
                lambda block, x: x + block.ffwd(block.ln2(x + block.sa(block.ln1(x)))),
            ),
            (
                "the path of the sums goes through a layer norm at its end",
                lambda block, x: block.ln2(_right(block, x)),
            ),
            ("ln1 is used twice, and ln2 not at all", _first_norm_twice),
            ("ln1 and ln2 are exchanged", _norms_exchanged),
        )
    ),
    hints=(
        "Two lines, each of the form x = x + part(norm(x)).",
        "In __init__: self.sa = MultiHeadAttention(config), self.ffwd = FeedForward(config), and two nn.LayerNorm.",
        "x = x + self.sa(self.ln1(x)), then the same with ffwd and ln2.",
    ),
    experiment=EXPERIMENT,
)

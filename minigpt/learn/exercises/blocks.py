"""Exercises 10 to 13: feed-forward, the block, the embeddings and the whole GPT."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.exercises.attention import IMPORTS
from minigpt.learn.modules import draw_weights, make_config, randint, randn, run_module
from minigpt.model.lecture import Block, FeedForward, GPTLanguageModel, compute_next_token_loss

FEED_FORWARD_TEXT = """
Attention moves information between positions. Feed-forward then computes with it, at each position separately: a
linear layer to four times the width, a nonlinearity, and a linear layer back.

    x (B, T, C) ─ Linear ─ (B, T, 4C) ─ ReLU ─ (B, T, 4C) ─ Linear ─ (B, T, C) ─ Dropout

Without the ReLU two linear layers would be one linear layer: nothing would be gained.

Write `__init__` and `forward`. self.net is an nn.Sequential of four modules, in the order of the picture.
"""

FEED_FORWARD_EXPERIMENT = """
torch.manual_seed(0)
net = FeedForward(ModelConfig(n_embd=8, n_head=1))
x = torch.randn(1, 4, 8)
changed = x.clone()
changed[0, 2] += 1  # change one position only
print("output changes at positions", (net(x) != net(changed)).any(dim=-1)[0].nonzero().flatten().tolist())
print("parameters:", sum(p.numel() for p in net.parameters()), "= 2 * 8 * 32 + 32 + 8")
"""

BLOCK_TEXT = """
A block is attention, then feed-forward. Two ideas make it possible to stack many blocks.

Residual connections: the output of each part is added to its input. In the backward pass a sum passes the gradient on
unchanged, so it reaches the first block.

Layer norm: what a part reads has mean 0 and variance 1 at each position. The norm stands before the part ("pre-norm"),
inside the branch. The path of the sums stays free of it.

    x ──┬───────────────────────(+)──┬─────────────────────────(+)── out
        └─ ln1 ─ sa (attention) ─┘   └─ ln2 ─ ffwd (feed-f.) ───┘

Write `__init__` and `forward`. The names: self.sa, self.ffwd, self.ln1, self.ln2 (nn.LayerNorm of n_embd).
"""

BLOCK_EXPERIMENT = """
torch.manual_seed(0)
config = ModelConfig(n_embd=32, n_head=4, block_size=8)
blocks = nn.Sequential(*(Block(config) for _ in range(12)))
blocks(torch.randn(4, 8, 32)).square().mean().backward()
for n, block in enumerate(blocks, 1):
    norm = sum(p.grad.square().sum() for p in block.parameters()).sqrt().item()
    print(f"block {n:>2}: norm of its gradient {norm:.4f}")
print("Without the residual connections the gradient of the first block would be thousands of times smaller.")
"""

POSITIONS_TEXT = """
Attention is blind to order: if two earlier positions change places, the weighted mean stays the same. So each position
gets a vector of its own, which is learned like that of the token, and both are added.

    idx           7   3   7          (B, T)
    token table   e7  e3  e7         row idx of a table (V, C)
    positions     p0  p1  p2         rows 0 to T - 1 of a table (block_size, C)
    sum           e7+p0  e3+p1  e7+p2        (B, T, C)

The token 7 has now two different vectors. All rows of the batch have the same positions.
"""

POSITIONS_EXPERIMENT = """
torch.manual_seed(0)
tokens, positions = torch.randn(10, 4), torch.randn(8, 4)
x = embed(torch.tensor([[7, 3, 7]]), tokens, positions)
print(x)
print("the same token at two positions has the same vector:", torch.equal(x[0, 0], x[0, 2]))
"""


def embed(idx: Tensor, token_table: Tensor, position_table: Tensor) -> Tensor:
    """Return the sum of the embeddings of token and position.

    Args:
        idx: token ids (B, T), int64, with T from 1 to block_size.
        token_table: a vector for each token, (V, C).
        position_table: a vector for each position, (block_size, C).

    Returns:
        (B, T, C).
    """
    T = idx.shape[1]
    return token_table[idx] + position_table[torch.arange(T)]


GPT_TEXT = """
All parts together are a GPT:

    idx (B, T) ─ token embedding + position embedding ─ (B, T, C)
               ─ n_layer blocks ─ ln_f, a last layer norm ─ lm_head, a linear layer ─ logits (B, T, V)

With targets it also returns the loss of exercise 3, else None.

Write `__init__` and `forward`. The names, so that the check can load the lecture's weights:
    self.config                    the configuration
    self.token_embedding_table     nn.Embedding(config.vocab_size, config.n_embd)
    self.position_embedding_table  nn.Embedding(config.block_size, config.n_embd)
    self.blocks                    nn.Sequential of config.n_layer times Block(config)
    self.ln_f                      nn.LayerNorm
    self.lm_head                   nn.Linear from n_embd to vocab_size
At the end of `__init__`, self.apply(init_weights) draws small weights, so that the first loss is close to ln V.
"""

GPT_EXPERIMENT = """
import math

torch.manual_seed(0)
config = ModelConfig(vocab_size=65, n_embd=64, n_head=4, n_layer=4, block_size=32)
model = GPTLanguageModel(config)
idx = torch.randint(65, (4, 32))
logits, loss = model(idx, torch.randint(65, (4, 32)))
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, logits {tuple(logits.shape)}")
print(f"loss before training {loss.item():.3f}, ln 65 = {math.log(65):.3f}")
"""


def _make_case(
    name: str,
    reference: type[nn.Module],
    config: ModelConfig,
    make_inputs: Callable[[], tuple[Tensor, ...]],
    about: str,
) -> Case:
    """Return a case that runs a module with random weights."""
    weights = draw_weights(reference(config), 2)
    about = f"{name}, n_embd {config.n_embd}, n_head {config.n_head}, {about}"
    return Case(about, lambda my: run_module(getattr(my, name)(config), weights, *make_inputs()))


def _make_input(shape: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Return the only input of a module, (B, T, C)."""
    return (randn(*shape),)


def _make_cases(name: str, reference: type[nn.Module]) -> tuple[Case, ...]:
    """Return the cases of a module that maps (B, T, C) to (B, T, C)."""
    configs = (make_config(2, 1), make_config(4, 2), make_config(9, 3), make_config(8, 2, dropout=0.5))
    shapes = ((1, 1, 2), (1, 2, 4), (2, 5, 9), (2, 8, 8))
    return tuple(
        _make_case(
            name,
            reference,
            config,
            functools.partial(_make_input, shape),
            f"x of shape {shape}{', dropout 0.5 in evaluation' if config.dropout else ''}",
        )
        for config, shape in zip(configs, shapes, strict=True)
    )


# Feed-forward.


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


FEED_FORWARD = Exercise(
    text=FEED_FORWARD_TEXT,
    imports=IMPORTS,
    references=(FeedForward,),
    cases=_make_cases("FeedForward", FeedForward),
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
            ("the hidden layer is n_embd wide instead of four times as wide", _NarrowFeedForward),
            ("there is only one linear layer", _OneLayer),
        )
    ),
    hints=(
        "nn.Sequential(first, second, ...) runs modules one after another.",
        "The first is nn.Linear(config.n_embd, 4 * config.n_embd), the second nn.ReLU().",
        "The third leads back to n_embd, the fourth is nn.Dropout(config.dropout). forward returns self.net(x).",
    ),
    experiment=FEED_FORWARD_EXPERIMENT,
)

# The block.


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


BLOCK = Exercise(
    text=BLOCK_TEXT,
    imports=IMPORTS,
    parts=("MultiHeadAttention", "FeedForward"),
    references=(Block,),
    cases=_make_cases("Block", Block),
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
            ("ln1 is used twice, and ln2 not at all", _first_norm_twice),
            ("ln1 and ln2 are exchanged", _norms_exchanged),
        )
    ),
    hints=(
        "Two lines, each of the form x = x + part(norm(x)).",
        "In __init__: self.sa = MultiHeadAttention(config), self.ffwd = FeedForward(config), and two nn.LayerNorm.",
        "x = x + self.sa(self.ln1(x)), then the same with ffwd and ln2.",
    ),
    experiment=BLOCK_EXPERIMENT,
)

# The embeddings.


def _make_embed_case(B: int, T: int) -> Case:
    """Return a case with B rows of T tokens."""
    return Case(
        f"embed(idx, token_table, position_table), idx of shape ({B}, {T}), block_size 6",
        lambda my: my.embed(randint(5, B, T, seed=T), randn(5, 3), randn(6, 3, seed=9)),
    )


POSITIONS = Exercise(
    text=POSITIONS_TEXT,
    imports="import torch\nfrom torch import Tensor",
    references=(embed,),
    cases=tuple(_make_embed_case(B, T) for B, T in ((1, 1), (1, 3), (3, 3), (2, 6))),
    mistakes=tuple(
        Mistake(when, {"embed": variant})
        for when, variant in (
            ("the positions are missing", lambda idx, tokens, positions: tokens[idx]),
            (
                "only the positions are there, and the tokens are missing",
                lambda idx, tokens, positions: positions[torch.arange(idx.shape[1])].expand(len(idx), -1, -1),
            ),
            (
                "the row of the position table is chosen by the token id instead of the position",
                lambda idx, tokens, positions: tokens[idx] + positions[idx],
            ),
            (
                "positions count from the end of block_size instead of from 0",
                lambda idx, tokens, positions: tokens[idx] + positions[-idx.shape[1] :],
            ),
            (
                "positions run backwards",
                lambda idx, tokens, positions: tokens[idx] + positions[torch.arange(idx.shape[1]).flip(0)],
            ),
            (
                "the two embeddings are multiplied instead of added",
                lambda idx, tokens, positions: tokens[idx] * positions[torch.arange(idx.shape[1])],
            ),
            (
                "the two embeddings are placed side by side instead of added",
                lambda idx, tokens, positions: torch.cat(
                    [tokens[idx], positions[: idx.shape[1]].expand(len(idx), -1, -1)], dim=-1
                ),
            ),
            ("every position gets the vector of position 0", lambda idx, tokens, positions: tokens[idx] + positions[0]),
            (
                "the whole position table is added, so that T must be block_size",
                lambda idx, tokens, positions: tokens[idx] + positions,
            ),
        )
    ),
    hints=(
        "token_table[idx] takes a row for each id: (B, T, C).",
        "torch.arange(T) is 0, 1, ..., T - 1. It takes the first T rows of the position table: (T, C).",
        "(B, T, C) + (T, C) adds the same positions to each row of the batch.",
    ),
    experiment=POSITIONS_EXPERIMENT,
)

# The GPT.


class _WrongGPT(GPTLanguageModel):
    """A GPT whose steps can be exchanged one by one."""

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits = self.lm_head(self.finish(self.blocks(self.start(idx))))
        return logits, self.compute_loss(logits, targets)

    def start(self, idx: Tensor) -> Tensor:
        """Return the embeddings."""
        return self.token_embedding_table(idx) + self.position_embedding_table(torch.arange(idx.shape[1]))

    def finish(self, x: Tensor) -> Tensor:
        """Return what the head reads."""
        return self.ln_f(x)

    def compute_loss(self, logits: Tensor, targets: Tensor | None) -> Any:
        """Return the loss."""
        return compute_next_token_loss(logits, targets)


class _NoFinalNorm(_WrongGPT):
    def finish(self, x: Tensor) -> Tensor:
        return x


class _NoPositions(_WrongGPT):
    def start(self, idx: Tensor) -> Tensor:
        return self.token_embedding_table(idx)


class _NoBlocks(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits = self.lm_head(self.ln_f(self.start(idx)))
        return logits, self.compute_loss(logits, targets)


class _FirstBlockOnly(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits = self.lm_head(self.ln_f(self.blocks[0](self.start(idx))))
        return logits, self.compute_loss(logits, targets)


class _Probabilities(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, _ = super().forward(idx)
        probabilities = F.softmax(logits, dim=-1)
        return probabilities, self.compute_loss(probabilities, targets)


class _LastPosition(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return logits[:, -1, :], loss


class _MixedOrder(_WrongGPT):
    def compute_loss(self, logits: Tensor, targets: Tensor | None) -> Any:
        return None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.T.flatten())


class _ShiftedAgain(_WrongGPT):
    def compute_loss(self, logits: Tensor, targets: Tensor | None) -> Any:
        if targets is None:
            return None
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


class _LossOnly(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return logits if targets is None else loss


class _LogitsOnly(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return logits if targets is None else (logits, loss)


class _FlatLogits(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return (logits if targets is None else logits.flatten(0, 1)), loss


def _make_gpt_inputs(B: int, T: int, has_targets: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that makes ids, and targets."""

    def make_inputs() -> tuple[Tensor, ...]:
        idx, targets = randint(7, B, T, seed=T), randint(7, B, T, seed=T + 1)
        return (idx, targets) if has_targets else (idx,)

    return make_inputs


GPT = Exercise(
    text=GPT_TEXT,
    imports=IMPORTS + "from minigpt.model.lecture import init_weights\n",
    parts=("Block", "compute_next_token_loss"),
    references=(GPTLanguageModel,),
    dropped=("GPTLanguageModel.generate",),
    cases=tuple(
        _make_case(
            "GPTLanguageModel",
            GPTLanguageModel,
            make_config(C, H, n_layer=n_layer),
            _make_gpt_inputs(B, T, has_targets),
            f"n_layer {n_layer}, idx of shape ({B}, {T}){', with targets' if has_targets else ''}",
        )
        for C, H, n_layer, B, T, has_targets in (
            (2, 1, 1, 1, 1, False),
            (4, 2, 2, 1, 3, False),
            (4, 2, 2, 2, 3, True),
            (9, 3, 2, 3, 8, True),
        )
    ),
    mistakes=tuple(
        Mistake(when, {"GPTLanguageModel": variant})
        for when, variant in (
            ("the last layer norm, ln_f, is not used", _NoFinalNorm),
            ("the positions are not added", _NoPositions),
            ("the blocks are not used", _NoBlocks),
            ("only the first block is used", _FirstBlockOnly),
            ("probabilities are returned instead of logits: the softmax belongs to the loss", _Probabilities),
            ("only the logits of the last position are returned", _LastPosition),
            (
                "logits and targets are flattened in different orders, so that predictions meet the wrong targets",
                _MixedOrder,
            ),
            ("the targets are shifted again, but y is already shifted", _ShiftedAgain),
            ("only the loss is returned when there are targets, instead of logits and loss", _LossOnly),
            ("only the logits are returned without targets, instead of logits and None", _LogitsOnly),
            ("the logits are returned as (B * T, V) instead of (B, T, V)", _FlatLogits),
        )
    ),
    hints=(
        "forward follows the picture from left to right. Each step is one line: x = ...",
        "The positions: self.position_embedding_table(torch.arange(T, device=idx.device)), with T = idx.shape[1].",
        "After the blocks: x = self.ln_f(x), logits = self.lm_head(x), return logits, "
        "compute_next_token_loss(logits, targets).",
    ),
    experiment=GPT_EXPERIMENT,
)

EXERCISES = {"feed_forward": FEED_FORWARD, "block": BLOCK, "positions": POSITIONS, "gpt": GPT}

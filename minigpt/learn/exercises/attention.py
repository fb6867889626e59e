"""Exercises 6 to 9: from the average of the past to multi-head attention."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import draw_weights, make_config, randn, run_module
from minigpt.model.lecture import Head, MultiHeadAttention

IMPORTS = """
import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig
"""

AVERAGE_TEXT = """
To use more than the last token, a position must read the positions before it. The simplest way is their mean:
position t gets the mean of positions 0 to t. It must not read the future, because it has to predict it.

                  reads 0   1   2   3
    position 0          1   0   0   0
    position 1         1/2 1/2  0   0        a matrix of weights (T, T): each row sums to one
    position 2         1/3 1/3 1/3  0        torch.tril gives the lower triangle
    position 3         1/4 1/4 1/4 1/4

Write it four times, with the same result:
1. by loops over b and t;
2. by a product of the matrix above and x: (T, T) @ (B, T, C) -> (B, T, C);
3. by a softmax: scores of 0, with minus infinity above the diagonal, become the same matrix;
4. with scores that somebody else computes: the softmax turns any scores (B, T, T) into weights. If all scores are 0,
   this is the mean again. If they come from the text, this is attention.
"""

AVERAGE_EXPERIMENT = """
torch.manual_seed(0)
x = torch.randn(2, 5, 3)
first = average_by_loop(x)
print("matrix: ", torch.allclose(average_by_matrix(x), first, atol=1e-6))
print("softmax:", torch.allclose(average_by_softmax(x), first, atol=1e-6))
print("scores: ", torch.allclose(weigh_by_scores(torch.zeros(2, 5, 5), x), first, atol=1e-6))
one_hot = torch.eye(5)[None]  # each position says its own number, so the result shows the weights
print(weigh_by_scores(torch.randn(1, 5, 5), one_hot))
"""


def average_by_loop(x: Tensor) -> Tensor:
    """Return at each position the mean of the positions up to it, by loops.

    Args:
        x: (B, T, C).

    Returns:
        The means (B, T, C).
    """
    B, T, _ = x.shape
    result = torch.zeros_like(x)
    for b in range(B):
        for t in range(T):
            result[b, t] = x[b, : t + 1].mean(dim=0)
    return result


def average_by_matrix(x: Tensor) -> Tensor:
    """Return the same by one product with a matrix of weights: (B, T, C) -> (B, T, C)."""
    T = x.shape[1]
    weights = torch.tril(torch.ones(T, T, dtype=x.dtype))
    weights = weights / weights.sum(dim=1, keepdim=True)
    return weights @ x


def average_by_softmax(x: Tensor) -> Tensor:
    """Return the same by a softmax over masked scores of zero: (B, T, C) -> (B, T, C)."""
    T = x.shape[1]
    is_future = torch.tril(torch.ones(T, T)) == 0
    scores = torch.zeros(T, T, dtype=x.dtype).masked_fill(is_future, float("-inf"))
    return F.softmax(scores, dim=-1) @ x


def weigh_by_scores(scores: Tensor, x: Tensor) -> Tensor:
    """Return at each position a weighted mean of the positions up to it.

    Args:
        scores: how much each position wants to read each other, (B, T, T).
        x: (B, T, C).

    Returns:
        (B, T, C). The weights are the softmax of the scores, without those of future positions.
    """
    T = x.shape[1]
    scores = scores.masked_fill(torch.tril(torch.ones(T, T)) == 0, float("-inf"))
    return F.softmax(scores, dim=-1) @ x


HEAD_TEXT = """
In attention each position chooses what it reads. It has three vectors of D numbers, made by three linear layers:

    query   what it looks for
    key     what it contains
    value   what it passes on

The score of position i for position j is the dot product of the query of i and the key of j. Then as before: the
mask, the softmax, the weighted mean, now of the values.

    q @ k^T  (B, T, D) @ (B, D, T) -> (B, T, T)     the scores
    / sqrt(D)                                       exercise 8 shows why
    mask     row i keeps columns 0 to i             1 0 0
    softmax  over the last dimension                1 1 0     self.tril[:T, :T]
    dropout  self.dropout, on the weights           1 1 1
    @ v      (B, T, T) @ (B, T, D) -> (B, T, D)

The layers are already there: self.key, self.query, self.value, self.tril and self.dropout. T may be smaller than
block_size. Write `forward`.
"""

HEAD_EXPERIMENT = """
torch.manual_seed(0)
head = Head(ModelConfig(n_embd=8, n_head=1, block_size=6))
x = torch.randn(1, 6, 8)
with torch.no_grad():
    head.value.weight.copy_(torch.eye(8))  # so that the output shows the weights
    x[0, :, :6] = torch.eye(6)
    out = head(x)
for t in range(6):
    bars = "".join(" .:-=+*#%@"[min(9, int(10 * w))] for w in out[0, t, :6].clamp(0, 1).tolist())
    print(f"position {t} reads |{bars}|")
"""

SCALE_TEXT = """
Two random vectors of D numbers with variance 1 have a dot product with variance D: D products are added up. So the
scores grow with the head size, like sqrt(D). A softmax of large scores puts nearly all weight on one position. Then
its gradient is nearly zero, and the head cannot learn to look elsewhere.

    scores     0.1  0.5 -0.2        the softmax is  0.31 0.46 0.23
    times 10   1.0  5.0 -2.0        the softmax is  0.02 0.98 0.00

Divided by sqrt(D), the scores have variance 1 for every D. Note: D is the head size, the last dimension of q and k.
It is not n_embd.

`measure_sharpness` says how much weight the strongest position gets: the mean of the largest softmax weight of all
rows. 1 means that each row reads a single position.
"""

SCALE_EXPERIMENT = """
torch.manual_seed(0)
print("head size   sharpness unscaled   scaled")
for D in (4, 16, 64, 256, 1024):
    q, k = torch.randn(20, 32, D), torch.randn(20, 32, D)
    raw, scaled = measure_sharpness(q @ k.transpose(-2, -1)), measure_sharpness(compute_scaled_scores(q, k))
    print(f"{D:>9}   {float(raw):>18.2f}   {float(scaled):>6.2f}")
"""


def compute_scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    """Return the scores of attention, divided by the square root of the head size.

    Args:
        q: queries (B, T, D).
        k: keys (B, S, D).

    Returns:
        The score of each query for each key, (B, T, S).
    """
    return q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5


def measure_sharpness(scores: Tensor) -> Tensor:
    """Return the mean over all rows of the largest softmax weight.

    Args:
        scores: (B, T, S).

    Returns:
        A single number, from 1 / S to 1.
    """
    return F.softmax(scores, dim=-1).amax(dim=-1).mean()


MULTI_HEAD_TEXT = """
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

MULTI_HEAD_EXPERIMENT = """
torch.manual_seed(0)
for n_head in (1, 2, 4, 8):
    attention = MultiHeadAttention(ModelConfig(n_embd=32, n_head=n_head, block_size=8))
    count = sum(p.numel() for p in attention.parameters())
    out = attention(torch.randn(2, 8, 32))
    print(f"{n_head} heads of size {32 // n_head:>2}: {count:,} parameters, output {tuple(out.shape)}")
"""

# The average.

MINUS_INFINITY = float("-inf")


def _mean_with(mask: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return an average with equal weights where the mask of (T, T) ones is not zero."""

    def average(x: Tensor) -> Tensor:
        weights = mask(torch.ones(x.shape[1], x.shape[1]))
        return weights / weights.sum(dim=1, keepdim=True) @ x

    return average


_present_hidden = _mean_with(lambda ones: ones.tril(-1))
_whole_text = _mean_with(lambda ones: ones)
_future = _mean_with(lambda ones: ones.triu())


def _divided_by_all(x: Tensor) -> Tensor:
    return x.cumsum(dim=1) / x.shape[1]


def _sums(x: Tensor) -> Tensor:
    return x.cumsum(dim=1)


def _columns(x: Tensor) -> Tensor:
    weights = torch.tril(torch.ones(x.shape[1], x.shape[1]))
    return weights / weights.sum(dim=0, keepdim=True) @ x


def _softmax_without_mask(x: Tensor) -> Tensor:
    return F.softmax(torch.tril(torch.ones(x.shape[1], x.shape[1])), dim=-1) @ x


def _softmax_columns(x: Tensor) -> Tensor:
    scores = torch.zeros(x.shape[1], x.shape[1])
    return F.softmax(scores.masked_fill(torch.tril(torch.ones_like(scores)) == 0, MINUS_INFINITY), dim=0) @ x


def _weigh(mask: Callable[[Tensor], Tensor], fill: float = MINUS_INFINITY, dim: int = -1) -> Callable[..., Tensor]:
    """Return a `weigh_by_scores` with another mask, another value for what is hidden, or another softmax."""

    def weigh_by_scores(scores: Tensor, x: Tensor) -> Tensor:
        hidden = mask(torch.ones(x.shape[1], x.shape[1])) == 0
        return F.softmax(scores.masked_fill(hidden, fill), dim=dim) @ x

    return weigh_by_scores


def _zeroed_after_softmax(scores: Tensor, x: Tensor) -> Tensor:
    return F.softmax(scores, dim=-1).tril() @ x


def _without_softmax(scores: Tensor, x: Tensor) -> Tensor:
    return scores.tril() @ x


AVERAGES = ("average_by_loop", "average_by_matrix", "average_by_softmax")


def _make_average_cases(name: str) -> list[Case]:
    """Return the cases of one of the first three versions."""
    shapes = ((1, 1, 1), (1, 2, 1), (2, 4, 3), (1, 7, 2))
    return [Case(f"{name}(x), x of shape {s}", functools.partial(_average, name, s)) for s in shapes]


def _average(name: str, shape: tuple[int, int, int], my: Any) -> Tensor:
    return getattr(my, name)(randn(*shape))


def _weigh_scores(shape: tuple[int, int, int], my: Any) -> Tensor:
    B, T, _ = shape
    return my.weigh_by_scores(randn(B, T, T, seed=1), randn(*shape))


def _scale_scores(B: int, T: int, S: int, D: int, my: Any) -> Tensor:
    return my.compute_scaled_scores(randn(B, T, D), randn(B, S, D, seed=1))


def _measure_sharpness(shape: tuple[int, int, int], my: Any) -> Tensor:
    return my.measure_sharpness(randn(*shape, seed=2))


def _make_average_mistakes(name: str) -> list[Mistake]:
    """Return the mistakes of one of the first three versions; those of the softmax in the third only."""
    found = [
        ("each position reads the whole text, the future too", _whole_text),
        ("each position reads the future instead of the past: the triangle is the wrong one", _future),
        ("a position does not read itself: its own place is missing in the mean", _present_hidden),
        ("the sum is divided by T instead of by the number of positions read", _divided_by_all),
        ("the positions are added up, and not divided by their number", _sums),
    ]
    if name == "average_by_matrix":
        found.append(("the columns of the weights sum to one instead of the rows: dim=1 is needed", _columns))
    if name == "average_by_softmax":
        found.append(("the softmax goes over the wrong dimension", _softmax_columns))
        found.append(("future scores are 0 instead of minus infinity, so they get weight too", _softmax_without_mask))
    return [Mistake(f"in {name} {when}", {name: variant}) for when, variant in found]


AVERAGE = Exercise(
    text=AVERAGE_TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F",
    references=(average_by_loop, average_by_matrix, average_by_softmax, weigh_by_scores),
    cases=(
        *(case for name in AVERAGES for case in _make_average_cases(name)),
        *(
            Case(
                f"weigh_by_scores(scores, x), x of shape {s}",
                functools.partial(_weigh_scores, s),
            )
            for s in ((1, 1, 1), (1, 2, 1), (2, 4, 3))
        ),
    ),
    mistakes=(
        *(mistake for name in AVERAGES for mistake in _make_average_mistakes(name)),
        *(
            Mistake(f"in weigh_by_scores {when}", {"weigh_by_scores": variant})
            for when, variant in (
                ("the mask hides the past instead of the future", _weigh(torch.triu)),
                ("the mask is missing", _weigh(lambda ones: ones)),
                ("the softmax goes over the wrong dimension", _weigh(torch.tril, dim=1)),
                ("hidden scores are 0 instead of minus infinity", _weigh(torch.tril, fill=0.0)),
                (
                    "the mask comes after the softmax, so that the weights no longer sum to one",
                    _zeroed_after_softmax,
                ),
                ("the softmax is missing", _without_softmax),
            )
        ),
    ),
    hints=(
        "For the loop: x[b, : t + 1] are the positions 0 to t of row b. Their mean goes over dim=0.",
        "For the matrix: weights = torch.tril(torch.ones(T, T)), divided by weights.sum(dim=1, keepdim=True).",
        "For the softmax: scores = torch.zeros(T, T).masked_fill(tril == 0, float('-inf')), and F.softmax(scores, "
        "dim=-1) @ x. The fourth has the same lines, with scores that are given.",
    ),
    experiment=AVERAGE_EXPERIMENT,
)

# One head.


def _make_head(attend: Callable[..., Tensor]) -> type[Head]:
    """Return a Head whose forward is `attend(head, q, k, v, x)`."""

    class Wrong(Head):
        def forward(self, x: Tensor) -> Tensor:
            return attend(self, self.query(x), self.key(x), self.value(x), x)

    return Wrong


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    mask: Callable[[Tensor], Tensor] = torch.tril,
    fill: float = MINUS_INFINITY,
    dim: int = -1,
) -> Tensor:
    """Return the output of a head, with parts of it exchanged."""
    scores = q @ k.transpose(-2, -1) * (k.shape[-1] ** -0.5 if scale is None else scale)
    hidden = mask(torch.ones(q.shape[1], q.shape[1])) == 0
    return F.softmax(scores.masked_fill(hidden, fill), dim=dim) @ v


def _mask_after_softmax(head: Head, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    weights = F.softmax(q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5, dim=-1)
    return weights.tril() @ v


def _dropout_always(head: Head, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
    weights = F.softmax(scores.masked_fill(head.tril[: x.shape[1], : x.shape[1]] == 0, MINUS_INFINITY), dim=-1)
    return F.dropout(weights, head.dropout.p) @ v


HEAD_MISTAKES = (
    (
        "the mask hides the past instead of the future",
        lambda head, q, k, v, x: _attend(q, k, v, mask=torch.triu),
    ),
    (
        "the mask is missing: each position reads the future too",
        lambda head, q, k, v, x: _attend(q, k, v, mask=torch.ones_like),
    ),
    (
        "a position cannot read itself: the mask hides the diagonal too",
        lambda head, q, k, v, x: _attend(q, k, v, mask=lambda ones: ones.tril(-1)),
    ),
    (
        "the softmax goes over the queries (dim=1) instead of the keys (dim=-1)",
        lambda head, q, k, v, x: _attend(q, k, v, dim=1),
    ),
    ("the softmax goes over the batch (dim=0)", lambda head, q, k, v, x: _attend(q, k, v, dim=0)),
    ("the scores are not scaled", lambda head, q, k, v, x: _attend(q, k, v, scale=1.0)),
    (
        "the scores are scaled by n_embd instead of the head size",
        lambda head, q, k, v, x: _attend(q, k, v, scale=x.shape[-1] ** -0.5),
    ),
    (
        "the scores are divided by the head size instead of its square root",
        lambda head, q, k, v, x: _attend(q, k, v, scale=1 / k.shape[-1]),
    ),
    (
        "the scores are multiplied by sqrt(D) instead of divided",
        lambda head, q, k, v, x: _attend(q, k, v, scale=k.shape[-1] ** 0.5),
    ),
    (
        "the scores are divided by sqrt(T) instead of sqrt(D)",
        lambda head, q, k, v, x: _attend(q, k, v, scale=k.shape[1] ** -0.5),
    ),
    (
        "hidden scores are 0 instead of minus infinity, so that the future gets weight",
        lambda head, q, k, v, x: _attend(q, k, v, fill=0.0),
    ),
    ("the mask comes after the softmax, so that the weights do not sum to one", _mask_after_softmax),
    ("queries and keys are exchanged: k @ q^T instead of q @ k^T", lambda head, q, k, v, x: _attend(k, q, v)),
    ("the keys are weighted instead of the values", lambda head, q, k, v, x: _attend(q, k, k)),
    ("the queries are weighted instead of the values", lambda head, q, k, v, x: _attend(q, k, q)),
    (
        "the softmax is missing",
        lambda head, q, k, v, x: (q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5).tril() @ v,
    ),
    ("dropout is left on in evaluation: use self.dropout, not F.dropout", _dropout_always),
)


def _make_module_case(
    name: str, reference: type[nn.Module], config: ModelConfig, shape: tuple[int, ...], seed: int
) -> Case:
    """Return a case that runs a module with random weights on random input."""
    weights = draw_weights(reference(config), seed)
    about = f"{name}, n_embd {config.n_embd}, n_head {config.n_head}, x of shape {shape}"
    about += f", dropout {config.dropout} in evaluation" if config.dropout else ""
    return Case(about, lambda my: run_module(getattr(my, name)(config), weights, randn(*shape, seed=seed)))


HEAD = Exercise(
    text=HEAD_TEXT,
    imports=IMPORTS,
    references=(Head,),
    kept=("Head.__init__",),
    cases=(
        _make_module_case("Head", Head, make_config(2, 1), (1, 1, 2), 1),
        _make_module_case("Head", Head, make_config(4, 2), (1, 2, 4), 2),
        _make_module_case("Head", Head, make_config(4, 2), (2, 3, 4), 3),
        _make_module_case("Head", Head, make_config(9, 3), (1, 8, 9), 4),
        _make_module_case("Head", Head, make_config(8, 2, dropout=0.5), (2, 5, 8), 5),
    ),
    mistakes=tuple(Mistake(when, {"Head": _make_head(attend)}) for when, attend in HEAD_MISTAKES),
    hints=(
        "First the three vectors: k = self.key(x), q = self.query(x), v = self.value(x), (B, T, D) each.",
        "The scores: q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5. The mask: "
        "weights.masked_fill(self.tril[:T, :T] == 0, float('-inf')).",
        "Then weights = F.softmax(weights, dim=-1), weights = self.dropout(weights), and return weights @ v.",
    ),
    experiment=HEAD_EXPERIMENT,
)

# The scale.


def _scale_by(compute: Callable[[Tensor], float]) -> dict[str, Any]:
    return {"compute_scaled_scores": lambda q, k: q @ k.transpose(-2, -1) * compute(k)}


SCALE = Exercise(
    text=SCALE_TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F",
    references=(compute_scaled_scores, measure_sharpness),
    cases=(
        *(
            Case(
                f"compute_scaled_scores(q, k), q of shape ({B}, {T}, {D}), k of shape ({B}, {S}, {D})",
                functools.partial(_scale_scores, B, T, S, D),
            )
            for B, T, S, D in ((1, 1, 1, 2), (1, 2, 2, 3), (2, 3, 4, 5))
        ),
        *(
            Case(
                f"measure_sharpness(scores), scores of shape {s}",
                functools.partial(_measure_sharpness, s),
            )
            for s in ((1, 1, 2), (1, 2, 3), (2, 3, 4))
        ),
    ),
    mistakes=(
        Mistake("the scores are not scaled", _scale_by(lambda k: 1.0)),
        Mistake("the scores are divided by D instead of sqrt(D)", _scale_by(lambda k: 1 / k.shape[-1])),
        Mistake("the scores are multiplied by sqrt(D) instead of divided", _scale_by(lambda k: k.shape[-1] ** 0.5)),
        Mistake(
            "the scores are divided by the square root of the number of keys, instead of the head size",
            _scale_by(lambda k: k.shape[1] ** -0.5),
        ),
        Mistake("the softmax is missing in measure_sharpness", {"measure_sharpness": lambda s: s.amax(dim=-1).mean()}),
        Mistake(
            "the softmax in measure_sharpness goes over the rows instead of the columns",
            {"measure_sharpness": lambda s: F.softmax(s, dim=1).amax(dim=1).mean()},
        ),
        Mistake(
            "measure_sharpness returns the largest weight of all rows instead of the mean of each row's largest",
            {"measure_sharpness": lambda s: F.softmax(s, dim=-1).max()},
        ),
        Mistake(
            "measure_sharpness takes the mean of all weights, which is always 1 / S",
            {"measure_sharpness": lambda s: F.softmax(s, dim=-1).mean()},
        ),
    ),
    hints=(
        "The head size is q.shape[-1]. A tensor times q.shape[-1] ** -0.5 is divided by the square root.",
        "k.transpose(-2, -1) exchanges the last two dimensions: (B, S, D) -> (B, D, S).",
        "F.softmax(scores, dim=-1) gives the weights; .amax(dim=-1) the largest of each row; .mean() their mean.",
    ),
    experiment=SCALE_EXPERIMENT,
)

# Several heads.


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


MULTI_HEAD = Exercise(
    text=MULTI_HEAD_TEXT,
    imports=IMPORTS,
    parts=("Head",),
    references=(MultiHeadAttention,),
    cases=(
        _make_module_case("MultiHeadAttention", MultiHeadAttention, make_config(2, 1), (1, 1, 2), 1),
        _make_module_case("MultiHeadAttention", MultiHeadAttention, make_config(4, 2), (1, 2, 4), 2),
        _make_module_case("MultiHeadAttention", MultiHeadAttention, make_config(9, 3), (2, 5, 9), 3),
        _make_module_case("MultiHeadAttention", MultiHeadAttention, make_config(8, 2, dropout=0.5), (2, 8, 8), 4),
    ),
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
        )
    ),
    hints=(
        "nn.ModuleList(Head(config) for _ in range(config.n_head)) registers the heads, so that they are trained.",
        "torch.cat([head(x) for head in self.heads], dim=-1) puts the outputs side by side.",
        "self.proj = nn.Linear(config.n_embd, config.n_embd); return self.dropout(self.proj(out)).",
    ),
    experiment=MULTI_HEAD_EXPERIMENT,
)

EXERCISES = {"average": AVERAGE, "head": HEAD, "scale": SCALE, "multi_head": MULTI_HEAD}

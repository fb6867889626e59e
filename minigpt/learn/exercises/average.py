"""Exercise 6: the average of the past, four ways."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randn

TEXT = """
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
3. by a softmax: scores of 0, with minus infinity above the diagonal, become the same matrix, as exp of minus infinity
   is 0;
4. with scores that somebody else computes: the softmax turns any scores (B, T, T) into weights. If all scores are 0,
   this is the mean again. If they come from the text, this is attention.
"""

EXPERIMENT = """
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


def _softmax_of_future(x: Tensor) -> Tensor:
    hidden = torch.tril(torch.ones(x.shape[1], x.shape[1])) == 1
    return F.softmax(torch.zeros_like(hidden, dtype=x.dtype).masked_fill(hidden, MINUS_INFINITY), dim=-1) @ x


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


def _triangle(x: Tensor) -> Tensor:
    weights = torch.tril(torch.ones(x.shape[1], x.shape[1]))
    return weights / weights.sum(dim=1, keepdim=True)


def _no_keepdim(x: Tensor) -> Tensor:
    weights = torch.tril(torch.ones(x.shape[1], x.shape[1]))
    return weights / weights.sum(dim=1) @ x


def _over_channels(x: Tensor) -> Tensor:
    return average_by_loop(x).mean(dim=-1, keepdim=True).expand_as(x)


def _over_batch(x: Tensor) -> Tensor:
    return average_by_loop(x).mean(dim=0, keepdim=True).expand_as(x)


def _overwritten(x: Tensor) -> Tensor:
    x = x.clone()
    for t in range(x.shape[1]):
        x[:, t] = x[:, : t + 1].mean(dim=1)
    return x


def _divided_scores(scores: Tensor, x: Tensor) -> Tensor:
    weights = scores.tril()
    return weights / weights.sum(dim=-1, keepdim=True) @ x


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


def _make_average_mistakes(name: str) -> list[Mistake]:
    """Return the mistakes of one of the first three versions; those of the softmax in the third only."""
    found = [
        ("each position reads the whole text, the future too", _whole_text),
        ("each position reads the future instead of the past: the triangle is the wrong one", _future),
        ("a position does not read itself: its own place is missing in the mean", _present_hidden),
        ("the sum is divided by T instead of by the number of positions read", _divided_by_all),
        ("the positions are added up, and not divided by their number", _sums),
    ]
    if name == "average_by_loop":
        found.append(("the mean goes over the channels too: .mean(dim=0) keeps them apart", _over_channels))
        found.append(("the mean goes over all rows of the batch", _over_batch))
        found.append(("x itself is overwritten, so that later means read earlier means", _overwritten))
    if name == "average_by_matrix":
        found.append(("keepdim=True is missing in the sum of the rows, so that columns are divided", _no_keepdim))
        found.append(("x stands before the weights: weights @ x", lambda x: x @ _triangle(x)))
        found.append(("the columns of the weights sum to one instead of the rows: dim=1 is needed", _columns))
    if name == "average_by_softmax":
        found.append(("the softmax goes over the wrong dimension", _softmax_columns))
        found.append(
            ("minus infinity is multiplied by 0, which is not a number: use masked_fill", lambda x: x * math.nan)
        )
        found.append(("the mask hides where tril is 1 instead of where it is 0", _softmax_of_future))
        found.append(("future scores are 0 instead of minus infinity, so they get weight too", _softmax_without_mask))
    return [Mistake(f"in {name} {when}", {name: variant}) for when, variant in found]


EXERCISE = Exercise(
    text=TEXT,
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
                (
                    "the mask hides the past and the position itself: where tril is 1 instead of where it is 0",
                    _weigh(lambda ones: ones.triu(1)),
                ),
                ("the mask is missing", _weigh(lambda ones: ones)),
                ("the softmax goes over the wrong dimension", _weigh(torch.tril, dim=1)),
                ("hidden scores are 0 instead of minus infinity", _weigh(torch.tril, fill=0.0)),
                (
                    "the mask comes after the softmax, so that the weights no longer sum to one",
                    _zeroed_after_softmax,
                ),
                ("the softmax is missing", _without_softmax),
                ("the scores are divided by their sum: the softmax takes exp of them first", _divided_scores),
            )
        ),
    ),
    hints=(
        "For the loop: x[b, : t + 1] are the positions 0 to t of row b. Their mean goes over dim=0.",
        "For the matrix: weights = torch.tril(torch.ones(T, T)), divided by weights.sum(dim=1, keepdim=True).",
        "For the softmax: scores = torch.zeros(T, T).masked_fill(tril == 0, float('-inf')), and F.softmax(scores, "
        "dim=-1) @ x. The fourth has the same lines, with scores that are given.",
    ),
    experiment=EXPERIMENT,
)

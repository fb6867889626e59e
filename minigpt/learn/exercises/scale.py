"""Exercise 8: why the scores are scaled."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randn

TEXT = """
Two random vectors of D numbers with variance 1 have a dot product with variance D: D products are added up. So the
scores grow with the head size, like sqrt(D). A softmax of large scores puts nearly all weight on one position. Then the
gradient of the softmax is nearly zero, and the head cannot learn to look elsewhere.

    scores     0.1  0.5 -0.2        the softmax is  0.31 0.46 0.23
    times 10   1.0  5.0 -2.0        the softmax is  0.02 0.98 0.00

Divided by sqrt(D), the scores have variance 1 for every D. Note: D is the head size, the last dimension of q and k.
It is not n_embd. T is the number of queries, and S the number of keys; in a head they are equal.

`measure_sharpness` says how much weight the strongest position gets: the mean of the largest softmax weight of all
rows. 1 means that each row reads a single position.
"""

EXPERIMENT = """
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


def _scale_scores(B: int, T: int, S: int, D: int, my: Any) -> Tensor:
    return my.compute_scaled_scores(randn(B, T, D), randn(B, S, D, seed=1))


def _measure_sharpness(shape: tuple[int, int, int], my: Any) -> Tensor:
    return my.measure_sharpness(randn(*shape, seed=2))


def _scale_by(compute: Callable[[Tensor], float]) -> dict[str, Any]:
    return {"compute_scaled_scores": lambda q, k: q @ k.transpose(-2, -1) * compute(k)}


EXERCISE = Exercise(
    text=TEXT,
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
        Mistake(
            "the scores are divided by the square root of the number of queries, instead of the head size",
            {"compute_scaled_scores": lambda q, k: q @ k.transpose(-2, -1) * q.shape[1] ** -0.5},
        ),
        Mistake(
            "the root is taken of the scores too: the brackets are wrong",
            {"compute_scaled_scores": lambda q, k: (q @ k.transpose(-2, -1) / q.shape[-1]) ** 0.5},
        ),
        Mistake(
            "queries and keys are exchanged: k @ q^T instead of q @ k^T",
            {"compute_scaled_scores": lambda q, k: k @ q.transpose(-2, -1) * q.shape[-1] ** -0.5},
        ),
        Mistake(
            "the scores are divided by the square root of the batch size, instead of the head size",
            _scale_by(lambda k: len(k) ** -0.5),
        ),
        Mistake(
            "weights are returned instead of scores: the softmax comes later",
            {"compute_scaled_scores": lambda q, k: F.softmax(compute_scaled_scores(q, k), dim=-1)},
        ),
        Mistake(
            "batch and time are exchanged: k.transpose(0, 1) instead of k.transpose(-2, -1)",
            {"compute_scaled_scores": lambda q, k: q @ k.transpose(0, 1) * q.shape[-1] ** -0.5},
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
            "measure_sharpness takes the largest of each column (dim=1) instead of each row (dim=-1)",
            {"measure_sharpness": lambda s: F.softmax(s, dim=-1).amax(dim=1).mean()},
        ),
        Mistake(
            "measure_sharpness returns a number for each row: the mean is missing",
            {"measure_sharpness": lambda s: F.softmax(s, dim=-1).amax(dim=-1)},
        ),
        Mistake(
            "measure_sharpness adds up the rows instead of taking their mean",
            {"measure_sharpness": lambda s: F.softmax(s, dim=-1).amax(dim=-1).sum()},
        ),
        Mistake(
            "measure_sharpness returns where the largest weight is (argmax), instead of its value",
            {"measure_sharpness": lambda s: F.softmax(s, dim=-1).argmax(dim=-1).double().mean()},
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
    experiment=EXPERIMENT,
)

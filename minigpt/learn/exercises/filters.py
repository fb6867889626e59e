"""Exercise 15: temperature, top-k and top-p."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.generation.filters import apply_temperature, keep_top_k, keep_top_p
from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randn

TEXT = """
Three ways to change the probabilities before the draw. All of them work on logits (B, V). A token that must not be
drawn gets the logit minus infinity, so that its probability is 0.

Temperature: logits / temperature. Below 1 likely tokens become more likely, above 1 all become more alike.

Top-k: keep the k largest logits of each row, and those that are equal to the k-th. If k is larger than V, all stay.

Top-p: keep the smallest set of most likely tokens whose probabilities add up to p or more.

    p = 0.8   sorted probabilities   0.5   0.25   0.15   0.1
              cumulative             0.5   0.75   0.90   1.0
              kept                   yes   yes    yes    no        0.5 + 0.25 is not yet 0.8, so the third stays

The token that crosses p stays. The most likely token always stays, also if p is 0.
"""

EXPERIMENT = """
logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])
rows = {
    "as they are": logits,
    "temperature 0.5": apply_temperature(logits, 0.5),
    "temperature 2": apply_temperature(logits, 2.0),
    "top-k 2": keep_top_k(logits, 2),
    "top-p 0.9": keep_top_p(logits, 0.9),
}
for name, row in rows.items():
    p = torch.softmax(row, dim=-1)[0].tolist()
    print(f"{name:<16}", " ".join(f"{x:.2f}" for x in p))
"""


def _keep_top_p(
    p_of: Callable[[Tensor], Tensor] = lambda ascending: F.softmax(ascending, dim=-1),
    keep: Callable[[Tensor, Tensor, float], Tensor] = lambda cumulative, own, p: cumulative - own < p,
    descending: bool = True,
    should_unsort: bool = True,
) -> Callable[[Tensor, float], Tensor]:
    """Return a top-p that keeps other tokens."""

    def keep_top_p(logits: Tensor, p: float) -> Tensor:
        ordered, order = logits.sort(dim=-1, descending=descending)
        own = p_of(ordered)
        kept = keep(own.cumsum(dim=-1), own, p)
        if should_unsort:
            kept = kept.scatter(-1, order, kept)
        return logits.masked_fill(~kept, MINUS_INFINITY)

    return keep_top_p


def _first_always(kept: Tensor) -> Tensor:
    kept[:, 0] = True
    return kept


MINUS_INFINITY = float("-inf")

FILTERED = torch.tensor([[0.15, 0.5, 0.1, 0.25]]).log()

TIED = torch.tensor([[1.0, 3.0, 2.0, 2.0]])

SMALL, ROWS = torch.tensor([[1.0, 3.0, 2.0]]), randn(3, 6, seed=4)


def _make_filter_case(name: str, logits: Tensor, about: str, value: float) -> Case:
    """Return a case that applies one of the filters."""
    return Case(f"{name}({about}, {value})", lambda my: getattr(my, name)(logits.clone(), value))


FILTER_CASES = (
    *(_make_filter_case("apply_temperature", SMALL, "[[1, 3, 2]]", t) for t in (2.0, 0.5)),
    *(_make_filter_case("keep_top_k", SMALL, "[[1, 3, 2]]", k) for k in (2, 1, 3)),
    _make_filter_case("keep_top_k", TIED, "[[1, 3, 2, 2]]", 2),
    *(_make_filter_case("keep_top_k", ROWS, "logits (3, 6)", k) for k in (2, 10)),
    *(
        _make_filter_case("keep_top_p", FILTERED, "the logits of probabilities 0.15, 0.5, 0.1, 0.25", p)
        for p in (0.8, 0.6, 0.45, 0.0)
    ),
    *(_make_filter_case("keep_top_p", ROWS, "logits (3, 6)", p) for p in (0.5, 0.99)),
)

EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F",
    references=(apply_temperature, keep_top_k, keep_top_p),
    cases=FILTER_CASES,
    mistakes=tuple(
        Mistake(when, {name: variant})
        for name, when, variant in (
            ("apply_temperature", "the logits are multiplied by the temperature", lambda a, t: a * t),
            ("apply_temperature", "the temperature is applied to probabilities", lambda a, t: F.softmax(a, -1) / t),
            ("apply_temperature", "probabilities are returned instead of logits", lambda a, t: F.softmax(a / t, -1)),
            (
                "keep_top_k",
                "top-k sets the other logits to 0 instead of minus infinity",
                lambda a, k: a.masked_fill(a < torch.topk(a, min(k, a.shape[-1])).values[:, -1:], 0.0),
            ),
            (
                "keep_top_k",
                "top-k drops the k-th token too: it needs < instead of <=",
                lambda a, k: a.masked_fill(a <= torch.topk(a, min(k, a.shape[-1])).values[:, -1:], MINUS_INFINITY),
            ),
            (
                "keep_top_k",
                "top-k keeps the k smallest logits instead of the largest",
                lambda a, k: a.masked_fill(
                    a > torch.topk(a, min(k, a.shape[-1]), largest=False).values[:, -1:], MINUS_INFINITY
                ),
            ),
            (
                "keep_top_k",
                "top-k returns only the k largest logits, so that the ids are lost",
                lambda a, k: torch.topk(a, min(k, a.shape[-1])).values,
            ),
            (
                "keep_top_k",
                "k is larger than the vocabulary in one case: use min(k, logits.shape[-1])",
                lambda a, k: a.masked_fill(a < torch.topk(a, k).values[:, -1:], MINUS_INFINITY),
            ),
            (
                "keep_top_k",
                "top-k drops tokens that are equal to the k-th: compare the logits with it",
                lambda a, k: torch.full_like(a, MINUS_INFINITY).scatter(-1, *torch.topk(a, min(k, a.shape[-1]))[::-1]),
            ),
            (
                "keep_top_k",
                "the thresholds (B,) are compared with the tokens of a row: keep their shape (B, 1) by [:, -1:]",
                lambda a, k: a.masked_fill(a < torch.topk(a, min(k, a.shape[-1])).values[:, -1], MINUS_INFINITY),
            ),
            (
                "keep_top_k",
                "top-k uses the threshold of the first row for all rows",
                lambda a, k: a.masked_fill(a < torch.topk(a, min(k, a.shape[-1])).values[:1, -1:], MINUS_INFINITY),
            ),
            (
                "keep_top_p",
                "top-p drops the token which crosses p",
                _keep_top_p(keep=lambda cumulative, own, p: _first_always(cumulative <= p)),
            ),
            (
                "keep_top_p",
                "top-p drops the token which crosses p, and even the most likely token if it alone is above p",
                _keep_top_p(keep=lambda cumulative, own, p: cumulative <= p),
            ),
            (
                "keep_top_p",
                "top-p drops all tokens if p is 0: the most likely token must stay",
                _keep_top_p(),
            ),
            (
                "keep_top_p",
                "top-p adds up logits instead of probabilities: the softmax is missing",
                _keep_top_p(
                    p_of=lambda ordered: ordered, keep=lambda cumulative, own, p: _first_always(cumulative - own < p)
                ),
            ),
            (
                "keep_top_p",
                "top-p begins at the least likely token",
                _keep_top_p(descending=False, keep=lambda cumulative, own, p: _first_always(cumulative - own < p)),
            ),
            (
                "keep_top_p",
                "top-p applies the mask of the sorted tokens to the unsorted ones",
                _keep_top_p(should_unsort=False, keep=lambda cumulative, own, p: _first_always(cumulative - own < p)),
            ),
            (
                "keep_top_p",
                "top-p returns the logits in sorted order, so that the ids are lost: scatter them back",
                lambda a, p: keep_top_p(a, p).sort(dim=-1, descending=True).values,
            ),
            (
                "keep_top_p",
                "top-p brings the logits back with gather: scatter is needed",
                lambda a, p: (
                    keep_top_p(a, p).sort(dim=-1, descending=True).values.gather(-1, a.argsort(dim=-1, descending=True))
                ),
            ),
            (
                "keep_top_p",
                "top-p drops each token whose own probability is below p, even the most likely",
                lambda a, p: a.masked_fill(F.softmax(a, dim=-1) < p, MINUS_INFINITY),
            ),
            (
                "keep_top_p",
                "top-p returns probabilities instead of logits",
                lambda a, p: F.softmax(keep_top_p(a, p), dim=-1),
            ),
            (
                "keep_top_p",
                "top-p keeps each token whose own probability is at least p",
                _keep_top_p(keep=lambda cumulative, own, p: _first_always(own >= p)),
            ),
        )
    ),
    hints=(
        "masked_fill(condition, float('-inf')) sets logits to minus infinity where the condition is true.",
        "Top-k: torch.topk(logits, k).values[:, -1:] is the k-th largest logit of each row. First k = min(k, V).",
        "Top-p: sort in descending order, softmax, cumsum. Keep a token if the sum before it is less than p. "
        "kept.scatter(-1, order, kept) brings the mask into the old order. The first always stays.",
    ),
    experiment=EXPERIMENT,
)

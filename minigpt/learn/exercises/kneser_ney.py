"""Exercise 22: modified Kneser-Ney smoothing for bigrams."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from minigpt.learn.exercise import Case, Exercise, Mistake

DEFAULT = (0.5, 1.0, 1.5)

TEXT = """
The best model that only counts. It predicts a token w from the token v before it. Four ideas:

1. Discounts. Subtract D1 from a count of one, D2 from two, D3 from three or more. With n_j the number of pairs that
   occur j times: Y = n_1 / (n_1 + 2 n_2), and D_j = j - (j + 1) Y n_{j+1} / n_j. Where n_1, n_2 or n_3 is 0, or a D_j
   is not above 0 and at most j, all three are the defaults (0.5, 1, 1.5).
2. Interpolation. What was subtracted is the leftover. It is given to the shorter context:
       p(w | v) = (c(v w) - D) / c(v) + leftover(v) * p(w),   leftover(v) = (sum of the discounts of v's pairs) / c(v)
   where c(v) is the sum of c(v w) over w, and a pair that never occurred has neither count nor discount.
3. Continuation counts. For p(w) count after how many different tokens w occurs, not how often: "Francisco" is
   frequent, but it follows one word only. The same discounts, computed from these counts, and the leftover goes to
   the uniform distribution 1 / V:
       p(w) = (n(w) - D) / N + leftover / V,   N = sum of n(w), leftover = (sum of the discounts) / N
4. A token v that was never followed by anything gives p(w | v) = p(w).

    ids   a b a b a c      pairs  ab 2, ba 2, ac 1      n(a) = 1, n(b) = 1, n(c) = 1

Every row of the result sums to one.
"""

EXPERIMENT = """
text = "san francisco is a city. san francisco is on a bay. the bay is wide, the city is old. "
characters = sorted(set(text))
ids = [characters.index(c) for c in text]
p = compute_probabilities(ids, len(characters))
print("each row sums to", np.unique(p.sum(axis=1).round(6)))
for v in "sa ":
    best = np.argsort(-p[characters.index(v)])[:5]
    print(f"after {v!r}: " + ", ".join(f"{characters[w]!r} {p[characters.index(v), w]:.2f}" for w in best))
"""


def compute_discounts(counts: list[int]) -> tuple[float, float, float]:
    """Return the discounts D1, D2 and D3.

    Args:
        counts: how often each thing occurs; all are at least 1.

    Returns:
        The discounts of counts of one, two, and three or more; the defaults (0.5, 1.0, 1.5) where the formula does not
        apply.
    """
    n1, n2, n3, n4 = (sum(count == j for count in counts) for j in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return DEFAULT
    Y = n1 / (n1 + 2 * n2)
    D1, D2, D3 = 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3
    return (D1, D2, D3) if 0 < D1 <= 1 and 0 < D2 <= 2 and 0 < D3 <= 3 else DEFAULT


def discount_counts(counts: np.ndarray) -> np.ndarray:
    """Return what is subtracted from each count.

    Args:
        counts: an array of any shape, with counts from 0.

    Returns:
        The discount of each count, in the same shape: 0 for a count of 0, else D1, D2 or D3, computed from all counts
        that are not 0.
    """
    discounts = np.array([0, *compute_discounts([int(count) for count in counts.flatten() if count])])
    return discounts[np.minimum(counts, 3).astype(int)]


def compute_probabilities(ids: list[int], vocab_size: int) -> np.ndarray:
    """Return the probability of each token after each token.

    Args:
        ids: the training text, at least 2 ids.
        vocab_size: V, the number of different tokens.

    Returns:
        (V, V), float64: row v has the probabilities p(w | v), and sums to one.
    """
    pairs = np.zeros((vocab_size, vocab_size))
    for v, w in pairwise(ids):
        pairs[v, w] += 1
    continuations = (pairs > 0).sum(axis=0)  # (V,): after how many different tokens each token occurs
    discount = discount_counts(continuations)
    shorter = (continuations - discount + discount.sum() / vocab_size) / continuations.sum()
    discount = discount_counts(pairs)
    totals = pairs.sum(axis=1, keepdims=True)  # (V, 1)
    known = np.where(totals > 0, totals, 1)
    leftover = np.where(totals > 0, discount.sum(axis=1, keepdims=True) / known, 1)
    return (pairs - discount) / known + leftover * shorter


def _wrong_probabilities(
    count_shorter: Callable[[np.ndarray], np.ndarray] = lambda pairs: (pairs > 0).sum(axis=0),
    discount_pairs: Callable[[np.ndarray], np.ndarray] = discount_counts,
    give: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda leftover, shorter: leftover * shorter,
    has_uniform: bool = True,
    should_clip: bool = True,
) -> dict[str, Any]:
    """Return the probabilities with one step exchanged."""

    def compute_probabilities(ids: list[int], vocab_size: int) -> np.ndarray:
        pairs = np.zeros((vocab_size, vocab_size))
        for v, w in pairwise(ids):
            pairs[v, w] += 1
        counts = count_shorter(pairs)
        taken = discount_counts(counts) if has_uniform else np.zeros_like(counts)
        shorter = (counts - taken + taken.sum() / vocab_size) / counts.sum()
        discount = discount_pairs(pairs)
        totals = pairs.sum(axis=1, keepdims=True)
        known = np.where(totals > 0, totals, 1)
        leftover = discount.sum(axis=1, keepdims=True) / known
        if should_clip:
            leftover = np.where(totals > 0, leftover, 1)
        return (pairs - discount) / known + give(leftover, shorter)

    return {"compute_probabilities": compute_probabilities}


def _one_discount(pairs: np.ndarray) -> np.ndarray:
    return np.where(pairs > 0, compute_discounts([int(c) for c in pairs.flatten() if c])[0], 0)


def _transposed(ids: list[int], vocab_size: int) -> np.ndarray:
    return compute_probabilities(ids, vocab_size).T


def _never_default(counts: list[int]) -> Any:
    n1, n2, n3, n4 = (sum(count == j for count in counts) for j in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return DEFAULT
    Y = n1 / (n1 + 2 * n2)
    return 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3


def _without_factor(counts: list[int]) -> Any:
    n1, n2, n3, n4 = (sum(count == j for count in counts) for j in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return DEFAULT
    Y = n1 / (n1 + n2)
    D = 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3
    return D if all(0 < d <= j for j, d in enumerate(D, 1)) else DEFAULT


TEXT_IDS = [int(i) for i in np.random.default_rng(1).geometric(0.35, 90) % 9]

COUNTS = np.array([[1, 1, 0, 1], [2, 3, 1, 1]])


def _without_cap(counts: np.ndarray) -> np.ndarray:
    discounts = np.array([0, *compute_discounts([int(count) for count in counts.flatten() if count])])
    return discounts[np.where(counts > 3, 0, counts).astype(int)]


def _also_zeros(counts: np.ndarray) -> np.ndarray:
    discounts = np.array(compute_discounts([int(count) for count in counts.flatten() if count]))
    return discounts[np.clip(counts - 1, 0, 2).astype(int)]


def _count_counts(counts: list[int]) -> list[int]:
    return [sum(count == j for count in counts) for j in (1, 2, 3, 4)]


def _apply_formula(n1: int, n2: int, n3: int, n4: int) -> Any:
    Y = n1 / (n1 + 2 * n2)
    return 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3


def _one_default(counts: list[int]) -> Any:
    found = _never_default(counts)
    return tuple(d if 0 < d <= j else DEFAULT[j - 1] for j, d in enumerate(found, 1))


def _or_more(counts: list[int]) -> Any:
    n1, n2, *_ = _count_counts(counts)
    n3, n4 = (sum(count >= j for count in counts) for j in (3, 4))
    if not (n1 and n2 and n3):
        return DEFAULT
    D = _apply_formula(n1, n2, n3, n4)
    return D if all(0 < d <= j for j, d in enumerate(D, 1)) else DEFAULT


def _without_brackets(counts: list[int]) -> Any:
    n1, n2, n3, n4 = _count_counts(counts)
    if not (n1 and n2 and n3):
        return DEFAULT
    Y = n1 / n1 + 2 * n2
    D = 1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3
    return D if all(0 < d <= j for j, d in enumerate(D, 1)) else DEFAULT


def _without_three(counts: np.ndarray) -> np.ndarray:
    return np.where(counts == 3, 0, discount_counts(counts))


def _same_discounts(ids: list[int], vocab_size: int) -> np.ndarray:
    pairs = np.zeros((vocab_size, vocab_size))
    for v, w in pairwise(ids):
        pairs[v, w] += 1
    by_count = np.array([0, *compute_discounts([int(count) for count in pairs.flatten() if count])])
    counts = (pairs > 0).sum(axis=0)
    taken = by_count[np.minimum(counts, 3)]
    shorter = (counts - taken + taken.sum() / vocab_size) / counts.sum()
    discount, totals = discount_counts(pairs), pairs.sum(axis=1, keepdims=True)
    known = np.where(totals > 0, totals, 1)
    leftover = np.where(totals > 0, discount.sum(axis=1, keepdims=True) / known, 1)
    return (pairs - discount) / known + leftover * shorter


def _fill_unknown(ids: list[int], vocab_size: int, value: float) -> np.ndarray:
    p = compute_probabilities(ids, vocab_size)
    p[[v for v in range(vocab_size) if v not in ids[:-1]]] = value
    return p


def _count_last_place(ids: list[int], vocab_size: int) -> np.ndarray:
    p = compute_probabilities(ids, vocab_size)
    last = ids[-1]
    followed = ids[:-1].count(last)
    p[last] *= followed / (followed + 1)
    return p


EXERCISE = Exercise(
    text=TEXT,
    imports="from itertools import pairwise\n\nimport numpy as np\n\nDEFAULT = (0.5, 1.0, 1.5)",
    references=(compute_discounts, discount_counts, compute_probabilities),
    cases=(
        Case("compute_discounts([1])", lambda my: my.compute_discounts([1])),
        Case("compute_discounts([1, 1, 1, 2, 3])", lambda my: my.compute_discounts([1, 1, 1, 2, 3])),
        Case(
            "compute_discounts(6 ones, 3 twos, 2 threes, 1 four)",
            lambda my: my.compute_discounts([1] * 6 + [2] * 3 + [3] * 2 + [4]),
        ),
        Case("compute_discounts([1, 2, 3, 3, 3])", lambda my: my.compute_discounts([1, 2, 3, 3, 3])),
        Case("discount_counts([0, 1, 2, 3, 7])", lambda my: my.discount_counts(np.array([0, 1, 2, 3, 7]))),
        Case("discount_counts(counts (2, 4))", lambda my: my.discount_counts(COUNTS)),
        Case("compute_probabilities([0, 0], 1)", lambda my: my.compute_probabilities([0, 0], 1)),
        Case("compute_probabilities([0, 1, 0], 2)", lambda my: my.compute_probabilities([0, 1, 0], 2)),
        Case(
            "compute_probabilities([0, 1, 0, 1, 0, 2], 4)", lambda my: my.compute_probabilities([0, 1, 0, 1, 0, 2], 4)
        ),
        Case("compute_probabilities(90 ids, 10)", lambda my: my.compute_probabilities(TEXT_IDS, 10)),
    ),
    mistakes=(
        Mistake("Y is n1 / (n1 + n2): n2 counts twice", {"compute_discounts": _without_factor}),
        Mistake(
            "the defaults are not used where a discount is out of its range", {"compute_discounts": _never_default}
        ),
        Mistake(
            "only the discount out of its range is replaced: then all three are the defaults",
            {"compute_discounts": _one_default},
        ),
        Mistake(
            "n_3 and n_4 also count what is larger: n_j counts what occurs exactly j times",
            {"compute_discounts": _or_more},
        ),
        Mistake(
            "the defaults are used where n_4 is 0: only n_1, n_2 and n_3 must not be 0",
            {"compute_discounts": lambda counts: compute_discounts(counts) if 4 in counts else DEFAULT},
        ),
        Mistake(
            "n_1, n_2 or n_3 can be 0, and the formula divides by it: return DEFAULT first",
            {"compute_discounts": lambda counts: _apply_formula(*_count_counts(counts))},
        ),
        Mistake("Y is n1 / n1 + 2 n2: brackets are missing around n1 + 2 n2", {"compute_discounts": _without_brackets}),
        Mistake(
            "the discounts are cut to whole numbers, because the array has the type of the counts: use float",
            {"discount_counts": lambda counts: discount_counts(counts).astype(counts.dtype)},
        ),
        Mistake(
            "the counts after the subtraction are returned: return what is subtracted",
            {"discount_counts": lambda counts: counts - discount_counts(counts)},
        ),
        Mistake("a count of exactly 3 gets no discount: 3 and more get D3", {"discount_counts": _without_three}),
        Mistake("only a count of exactly three gets D3: a larger one gets it too", {"discount_counts": _without_cap}),
        Mistake("a count of 0 gets a discount: it has none", {"discount_counts": _also_zeros}),
        Mistake(
            "p(w) comes from how often w occurs, instead of after how many different tokens",
            _wrong_probabilities(count_shorter=lambda pairs: pairs.sum(axis=0)),
        ),
        Mistake(
            "p(w) counts how many different tokens follow w, instead of come before it",
            _wrong_probabilities(count_shorter=lambda pairs: (pairs > 0).sum(axis=1)),
        ),
        Mistake(
            "nothing is discounted, so that a pair which never occurred is impossible",
            _wrong_probabilities(discount_pairs=np.zeros_like),
        ),
        Mistake(
            "each row gets discounts of its own: compute them from all pairs at once",
            _wrong_probabilities(discount_pairs=lambda pairs: np.array([discount_counts(row) for row in pairs])),
        ),
        Mistake(
            "p(w) has the discounts of the pairs: compute them anew from the continuation counts",
            {"compute_probabilities": _same_discounts},
        ),
        Mistake(
            "a token that nothing ever followed has the uniform distribution instead of p(w)",
            {"compute_probabilities": lambda ids, V: _fill_unknown(ids, V, 1 / V)},
        ),
        Mistake(
            "a token that nothing ever followed is divided by its count 0: it has p(w)",
            {"compute_probabilities": lambda ids, V: _fill_unknown(ids, V, np.nan)},
        ),
        Mistake(
            "c(v) counts all places of v, also the last of the text, which nothing follows",
            {"compute_probabilities": _count_last_place},
        ),
        Mistake("all counts get the discount D1", _wrong_probabilities(discount_pairs=_one_discount)),
        Mistake(
            "the leftover is lost: the rows do not sum to one",
            _wrong_probabilities(give=lambda leftover, shorter: np.zeros_like(leftover * shorter)),
        ),
        Mistake(
            "the leftover goes to the uniform distribution at once, without p(w)",
            _wrong_probabilities(give=lambda leftover, shorter: leftover / len(shorter) + 0 * shorter),
        ),
        Mistake("p(w) is not interpolated with the uniform distribution", _wrong_probabilities(has_uniform=False)),
        Mistake(
            "a token that nothing ever followed has a row of zeros instead of p(w)",
            _wrong_probabilities(should_clip=False),
        ),
        Mistake(
            "the pairs are counted the wrong way round: pairs[v, w] counts w after v",
            {"compute_probabilities": lambda ids, V: compute_probabilities(ids[::-1], V)},
        ),
        Mistake("rows and columns are exchanged: row v must be what follows v", {"compute_probabilities": _transposed}),
    ),
    hints=(
        "Begin with the table of pair counts: np.zeros((V, V)), and a loop over pairwise(ids).",
        "(pairs > 0).sum(axis=0) are the continuation counts. For discount_counts, index an array (0, D1, D2, D3) with "
        "np.minimum(counts, 3).",
        "First p(w), then p(w | v) = (pairs - discount) / totals + leftover * p(w). Where the total is 0, the leftover "
        "is 1 and the division is by 1.",
    ),
    experiment=EXPERIMENT,
)

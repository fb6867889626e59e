"""The n-gram model equals a slow version, written with dictionaries from the formulas of the paper."""

import math
import random
from collections import Counter, defaultdict

import pytest
import torch

from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError, DataError
from minigpt.generation.engine import generate
from minigpt.model.loss import compute_exact_loss
from minigpt.model.ngram import DEFAULT_DISCOUNTS, PROBABILITIES_PER_CHUNK, NGramModel, compute_discounts


class DictionaryModel:
    """p(w | context) of Chen and Goodman (1999), with a dictionary for each order and a recursion over the orders."""

    def __init__(self, ids: list[int], vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        seen = {k: Counter(tuple(ids[i : i + k]) for i in range(len(ids) - k + 1)) for k in range(1, order + 1)}
        self.counts: dict[int, dict[tuple, int]] = {order: dict(seen[order])}
        for k in range(1, order):
            before = defaultdict(set)
            for gram in seen[k + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[k] = {gram: len(before[gram]) for gram in seen[k]}
        self.discounts = {k: self.compute_discounts(list(counts.values())) for k, counts in self.counts.items()}

    @staticmethod
    def compute_discounts(counts: list[int]) -> tuple[float, float, float]:
        n1, n2, n3, n4 = (counts.count(j) for j in (1, 2, 3, 4))
        if 0 in (n1, n2, n3):
            return (0.5, 1.0, 1.5)
        Y = n1 / (n1 + 2 * n2)
        ds = (1 - 2 * Y * n2 / n1, 2 - 3 * Y * n3 / n2, 3 - 4 * Y * n4 / n3)
        return ds if all(0 < d <= j for j, d in enumerate(ds, 1)) else (0.5, 1.0, 1.5)

    def p(self, token: int, context: tuple, k: int | None = None) -> float:
        k = self.order if k is None else k
        if k == 0:
            return 1 / self.vocab_size
        context = context[max(0, len(context) - (k - 1)) :]
        after = {w: self.counts[k].get((*context, w), 0) for w in range(self.vocab_size)}
        total = sum(after.values())
        shorter = self.p(token, context, k - 1)
        if len(context) < k - 1 or total == 0:
            return shorter
        D = lambda count: 0.0 if count == 0 else self.discounts[k][min(count, 3) - 1]  # noqa: E731
        leftover = sum(D(count) for count in after.values()) / total
        return (after[token] - D(after[token])) / total + leftover * shorter


def make_ids(length: int, vocab_size: int, seed: int) -> list[int]:
    """Return a text with repetitions, as `compute_discounts` needs them."""
    rng = random.Random(seed)
    words = [[rng.randrange(vocab_size) for _ in range(rng.randint(1, 4))] for _ in range(12)]
    ids: list[int] = []
    while len(ids) < length:
        ids += rng.choices(words, weights=range(1, 13))[0]
    return ids[:length]


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("length", "vocab_size", "seed"), [(3000, 9, 0), (400, 5, 1), (60, 30, 2), (7, 4, 3)])
def test_the_probabilities_equal_those_of_the_papers_formulas(
    order: int, length: int, vocab_size: int, seed: int
) -> None:
    ids, new = make_ids(length, vocab_size, seed), make_ids(60, vocab_size, seed + 100)
    reference = DictionaryModel(ids, vocab_size, order)
    rows = NGramModel.fit(ids, vocab_size, order).log_probs(new)
    assert rows.shape == (60, vocab_size)
    for i in range(60):
        expected = [math.log(reference.p(w, tuple(new[:i]))) for w in range(vocab_size)]
        assert rows[i].tolist() == pytest.approx(expected, abs=1e-10)


def test_the_discounts_follow_the_papers_formula() -> None:
    counts = torch.tensor([1] * 40 + [2] * 15 + [3] * 6 + [4] * 3 + [9] * 5)
    Y = 40 / (40 + 2 * 15)
    assert compute_discounts(counts) == pytest.approx((1 - 2 * Y * 15 / 40, 2 - 3 * Y * 6 / 15, 3 - 4 * Y * 3 / 6))
    assert compute_discounts(torch.tensor([20, 30, 40])) == DEFAULT_DISCOUNTS  # as at order 1
    assert compute_discounts(torch.tensor([1] * 10 + [2] * 2 + [3] * 10)) == DEFAULT_DISCOUNTS  # D2 would be negative
    assert compute_discounts(torch.tensor([], dtype=torch.int64)) == DEFAULT_DISCOUNTS


@pytest.mark.parametrize("order", [1, 2, 4, 7])
@pytest.mark.parametrize("training", [[], [3], [1, 1, 1, 1], make_ids(500, 6, 4)])
def test_probabilities_sum_to_one_and_none_is_zero(order: int, training: list[int]) -> None:
    """Also after unseen contexts, with a token (7) that the training text lacks."""
    rows = NGramModel.fit(training, 8, order).log_probs(torch.randint(8, (300,)))
    assert rows.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 300, abs=1e-12)
    assert torch.isfinite(rows).all()


def test_an_unseen_context_changes_nothing() -> None:
    model = NGramModel.fit([0, 1, 2] * 50, 5, 3)
    after_nothing, after_unseen = model.log_probs([0])[0], model.log_probs([4, 4, 0])[2]
    assert torch.equal(after_nothing, after_unseen)
    assert not torch.equal(model.log_probs([1, 0])[1], after_nothing)


def test_a_text_of_several_chunks_has_the_probabilities_of_one() -> None:
    model, length = NGramModel.fit(make_ids(2000, 9, 0), 9, 4), PROBABILITIES_PER_CHUNK // 9 + 1000
    new = make_ids(length, 9, 5)
    rows = model.log_probs(new)
    at_once, _ = model(torch.tensor([new]))  # row i of `rows` predicts token i, row i here the one after it
    assert torch.equal(rows[1:], at_once[0, :-1])
    assert torch.equal(model.token_losses(new), -rows[torch.arange(1, length), torch.tensor(new[1:])])


def test_an_n_gram_model_generates_and_is_measured_like_any_model() -> None:
    ids = make_ids(3000, 9, 0)
    model = NGramModel.fit(ids, 9, 4)
    logits, loss = model(torch.tensor([ids[:20], ids[50:70]]), torch.tensor([ids[1:21], ids[51:71]]))
    assert logits.shape == (2, 20, 9)
    for row, start in zip(logits, (0, 50), strict=True):
        assert torch.allclose(row[:-1], model.log_probs(ids[start : start + 20])[1:])
    both = torch.cat([model.token_losses(ids[start : start + 21]) for start in (0, 50)])
    assert loss.item() == pytest.approx(both.mean().item())
    written = generate(model, torch.tensor([ids[:3]]), SamplingConfig(max_new_tokens=200, seed=1))[0].tolist()
    assert written == generate(model, torch.tensor([ids[:3]]), SamplingConfig(max_new_tokens=200, seed=1))[0].tolist()
    seen = {tuple(ids[i : i + 4]) for i in range(len(ids) - 3)}
    held = [tuple(written[i : i + 4]) in seen for i in range(197)]
    assert sum(held) > 150  # most of what it writes occurs in its training text
    assert compute_exact_loss(model, torch.tensor(ids)) < 1.8 < math.log(9)  # in windows of three, dropout or none


def test_n_grams_counts_the_distinct_n_grams() -> None:
    ids = make_ids(300, 9, 0)
    distinct = {tuple(ids[i : i + k]) for k in (1, 2, 3) for i in range(len(ids) - k + 1)}
    assert NGramModel.fit(ids, 9, 3).n_grams == len(distinct)


def test_impossible_orders_and_ids_are_refused() -> None:
    with pytest.raises(ConfigError, match="order and vocab_size must be at least 1, not 0 and 5"):
        NGramModel.fit([1, 2], 5, 0)
    with pytest.raises(DataError, match="ids run from 1 to 5: they must lie in 0 to 4"):
        NGramModel.fit([1, 5], 5, 2)
    with pytest.raises(DataError, match="they must lie in 0 to 4"):
        NGramModel.fit([1, 2], 5, 2).log_probs([-1, 2])

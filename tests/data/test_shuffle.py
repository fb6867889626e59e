"""The random permutation that takes no memory."""

import numpy as np
import pytest

from minigpt.data.shuffle import RandomPermutation


@pytest.mark.parametrize("n", [*range(1, 70), 127, 128, 129, 1000, 4096, 65_537, 300_000])
def test_each_number_occurs_exactly_once(n: int) -> None:
    order = RandomPermutation(n, seed=n)[np.arange(n)]
    assert np.array_equal(np.sort(order), np.arange(n))


def test_the_order_depends_on_the_seed_alone() -> None:
    places = np.array([7, 99_999, 0, 54_321])
    whole = RandomPermutation(100_000, seed=[5, 2])[np.arange(100_000)]
    assert np.array_equal(RandomPermutation(100_000, seed=[5, 2])[places], whole[places])
    assert not np.array_equal(RandomPermutation(100_000, seed=[5, 3])[np.arange(100_000)], whole)


def test_the_order_looks_random() -> None:
    n = 100_000
    order = RandomPermutation(n, seed=1)[np.arange(n)].astype(float)
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.02  # a shuffle's is 0 give or take 0.003
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs((np.diff(order) > 0).mean() - 0.5) < 0.01
    assert (order == np.arange(n)).sum() < 10  # one on average stays where it was


def test_a_permutation_may_be_longer_than_memory() -> None:
    order = RandomPermutation(10**15, seed=3)
    found = order[np.arange(1000) + 10**14]
    assert len(set(found.tolist())) == 1000
    assert found.min() >= 0
    assert found.max() < 10**15
    assert found.max() > 9 * 10**14

"""The split and the batches."""

import pytest
import torch

from minigpt.config import Config
from minigpt.errors import DataError
from minigpt.text.dataset import Dataset


def dataset(length: int = 1000, **settings: object) -> Dataset:
    return Dataset(torch.arange(length), Config().override(**{"block_size": 8, "batch_size": 5} | settings))


def test_the_split_is_contiguous_and_loses_nothing() -> None:
    data = dataset(1115)
    assert (data.train.tolist(), data.val.tolist()) == (list(range(1003)), list(range(1003, 1115)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_targets_are_the_contexts_shifted_by_one(split: str) -> None:
    data = dataset()
    for _ in range(50):
        x, y = data.get_batch(split)
        assert x.shape == y.shape == (5, 8)
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(y, x + 1)  # the ids count up, so the next token is one more
        assert torch.equal(x - x[:, :1], torch.arange(8).expand(5, 8))
        inside = data.train if split == "train" else data.val
        assert x.min() >= inside[0]
        assert y.max() <= inside[-1]


def test_every_window_can_be_drawn() -> None:
    data = dataset(20, train_fraction=0.5, block_size=4)
    starts = torch.cat([data.get_batch("train")[0][:, 0] for _ in range(200)])
    assert set(starts.tolist()) == set(range(10 - 4))


def test_batches_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = dataset(seed=7).get_batch("train")[0]
    torch.manual_seed(2)
    assert torch.equal(first, dataset(seed=7).get_batch("train")[0])
    assert not torch.equal(first, dataset(seed=8).get_batch("train")[0])


def test_the_shortest_text_that_fits_and_the_longest_that_does_not() -> None:
    assert dataset(18, train_fraction=0.5).get_batch("val")[0].shape == (5, 8)
    with pytest.raises(DataError, match="the validation split has 8 tokens and block_size 8 needs at least 9"):
        dataset(17, train_fraction=0.53)
    with pytest.raises(DataError, match="the training split has 8 tokens and block_size 8 needs at least 9"):
        dataset(17, train_fraction=0.5)

"""The dataset: its split and its batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minigpt.config import Config
from minigpt.data.dataset import Dataset, take_windows
from minigpt.data.prepared_data import TokenFiles
from minigpt.errors import DataError


def dataset(length: int = 1000, **settings: object) -> Dataset:
    return Dataset(torch.arange(length), Config().override(**{"block_size": 8, "batch_size": 5} | settings))


def test_the_split_is_contiguous_and_has_every_token() -> None:
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


def test_a_split_shorter_than_a_window_and_its_targets_is_refused() -> None:
    assert dataset(18, train_fraction=0.5).get_batch("val")[0].shape == (5, 8)
    with pytest.raises(DataError, match="the validation split has 8 tokens and block_size 8 needs at least 9"):
        dataset(17, train_fraction=0.53)
    with pytest.raises(DataError, match="the training split has 8 tokens and block_size 8 needs at least 9"):
        dataset(17, train_fraction=0.5)


def files_of(ids: np.ndarray, folder: Path, ends: list[int]) -> TokenFiles:
    """The ids in files that end at `ends`."""
    paths = []
    for start, end in zip([0, *ends], [*ends, len(ids)], strict=True):
        paths.append(folder / f"{start}.bin")
        ids[start:end].tofile(paths[-1])
    return TokenFiles(paths, ids.dtype)


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_several_files_are_read_as_one_sequence(dtype: str, tmp_path: Path) -> None:
    ids = (np.arange(1000) * 31 % 65_536).astype(dtype)
    files = files_of(ids, tmp_path, [1, 3, 100, 101, 102, 500, 999])
    assert len(files) == 1000
    assert np.array_equal(files[:], ids.astype(np.int64))
    for start in range(0, 990, 7):
        for length in (1, 2, 9, 300):
            assert np.array_equal(files[start : start + length], ids[start : start + length].astype(np.int64))
    starts = torch.tensor([0, 1, 2, 95, 99, 100, 490, 983, 0])
    whole = take_windows(torch.from_numpy(ids.astype(np.int64)), starts, 16)
    for mapped, held in zip(take_windows(files, starts, 16), whole, strict=True):
        assert torch.equal(mapped, held)
        assert mapped.dtype == torch.int64
        assert mapped.is_contiguous()
    assert len(TokenFiles([], ids.dtype)) == 0


@pytest.mark.parametrize("order", ["random", "epochs"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_the_shares_of_all_processes_are_the_batch_of_one(order: str, world_size: int) -> None:
    alone = dataset(order=order)
    ranks = [
        Dataset(
            torch.arange(1000),
            Config().override(block_size=8, batch_size=5, order=order),
            rank=r,
            world_size=world_size,
        )
        for r in range(world_size)
    ]
    for step in range(60):
        split = "val" if step % 7 == 3 else "train"
        whole = alone.get_batch(split)
        shares = [rank.get_batch(split) for rank in ranks]
        for n in range(2):
            assert torch.equal(torch.cat([share[n] for share in shares]), whole[n])
    assert {data.position for data in ranks} == {alone.position}


@pytest.mark.parametrize(("tokens", "an_epoch"), [(800, 98), (801, 99), (17, 1), (9, 1)])
def test_each_epoch_reads_adjacent_windows_from_another_place(tokens: int, an_epoch: int) -> None:
    data = dataset(order="epochs", train_fraction=tokens / 1000)
    starts = torch.cat([data.get_batch("train")[0][:, 0] for _ in range(20 * an_epoch)]).view(100, an_epoch)
    for epoch in starts.sort(dim=1).values:
        assert torch.equal(epoch, epoch[0] + 8 * torch.arange(an_epoch))
    firsts = starts.min(dim=1).values.tolist()
    assert set(firsts) == set(range(tokens - 8 * an_epoch))
    assert starts.max() == tokens - 9
    assert len({tuple(epoch.tolist()) for epoch in starts}) == (100 if an_epoch > 1 else len(set(firsts)))
    assert data.position == 100 * an_epoch


@pytest.mark.parametrize("order", ["random", "epochs"])
def test_training_batches_go_on_from_a_restored_state(order: str) -> None:
    data, again = dataset(order=order), dataset(order=order)
    for _ in range(33):
        data.get_batch("train")
    state = data.state_dict()
    expected = [data.get_batch("train") for _ in range(40)]
    again.load_state_dict(state)
    for x, y in expected:
        assert all(torch.equal(a, b) for a, b in zip(again.get_batch("train"), (x, y), strict=True))
    assert again.position == data.position


@pytest.mark.parametrize("order", ["random", "epochs"])
def test_a_validation_batch_does_not_change_the_training_batches(order: str) -> None:
    undisturbed, disturbed = dataset(order=order), dataset(order=order)
    for _ in range(40):
        disturbed.get_batch("val")
        assert torch.equal(disturbed.get_batch("train")[0], undisturbed.get_batch("train")[0])

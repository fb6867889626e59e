"""`estimate_loss` uses the same evenly spaced windows each time."""

import pytest
import torch

from minigpt.config import Config
from minigpt.data.dataset import Dataset, take_spaced_windows
from minigpt.model.lecture import GPTLanguageModel
from minigpt.training.evaluation import estimate_loss


def test_windows_are_evenly_spaced_from_the_first_to_the_last() -> None:
    x, y = take_spaced_windows(torch.arange(1000), 10, block_size=8)
    assert x.shape == y.shape == (10, 8)
    assert torch.equal(y, x + 1)
    assert (x[0, 0].item(), y[-1, -1].item()) == (0, 999)
    gaps = x[1:, 0] - x[:-1, 0]
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("length", [9, 10, 50])
def test_a_short_split_gives_all_its_windows(length: int) -> None:
    x, _ = take_spaced_windows(torch.arange(length), 128, block_size=8)
    assert x[:, 0].tolist() == list(range(length - 8))


def test_the_estimate_is_the_mean_over_fixed_windows() -> None:
    torch.manual_seed(0)
    config = Config().override(vocab_size=17, block_size=8, n_embd=8, n_head=2, n_layer=1, dropout=0.4)
    data = Dataset(torch.randint(17, (4000,)), config)
    model = GPTLanguageModel(config.model)
    model.lm_head.weight.data.normal_()
    losses = estimate_loss(model, data, eval_windows=50)
    assert losses == estimate_loss(model, data, eval_windows=50)
    assert model.training
    model.eval()
    for split, ids in (("train", data.train), ("val", data.val)):
        assert losses[split] == pytest.approx(model(*take_spaced_windows(ids, 50, 8))[1].item(), rel=1e-6)

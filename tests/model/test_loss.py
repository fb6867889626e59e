"""The exact loss equals the mean over predictions made one by one."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
from minigpt.model.loss import compute_exact_loss, iterate_losses, split_into_windows
from minigpt.model.loss_units import nats_to_bits, nats_to_perplexity


def compute_loss_one_by_one(model: GPTLanguageModel, ids: torch.Tensor, T: int) -> float:
    """Predict each token after the first from those before it in its window, one at a time."""
    losses = []
    for i in range(1, len(ids)):
        start = (i - 1) // T * T
        logits = model(ids[None, start:i])[0][0, -1]
        losses.append(F.cross_entropy(logits, ids[i]).item())
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("length", [2, 5, 8, 9, 10, 17, 100])
def test_every_token_is_predicted_once(length: int) -> None:
    torch.manual_seed(0)
    model = GPTLanguageModel(ModelConfig(vocab_size=7, block_size=8, n_embd=8, n_head=2, n_layer=1, dropout=0.5))
    model.lm_head.weight.data.normal_(std=2)
    ids = torch.randint(7, (length,))
    measured = compute_exact_loss(model, ids)
    assert model.training  # dropout is on again
    assert measured == pytest.approx(compute_loss_one_by_one(model.eval(), ids, 8), rel=1e-5)


def test_many_batches_weigh_alike() -> None:
    torch.manual_seed(0)
    model = BigramLanguageModel(ModelConfig(vocab_size=7, block_size=8))
    model.token_embedding_table.weight.data.normal_(std=2)
    ids = torch.randint(7, (20_011,))
    whole = F.cross_entropy(model(ids[None, :-1])[0][0], ids[1:]).item()
    assert compute_exact_loss(model, ids) == pytest.approx(whole, rel=1e-6)


def test_of_a_large_text_so_many_predictions_count_evenly_spread() -> None:
    ids, T = torch.arange(100_003), 8
    x, y = (torch.cat(parts) for parts in zip(*split_into_windows(ids, T, max_predictions=10_000), strict=True))
    assert x.shape == (1250, 8)
    assert torch.equal(y, x + 1)
    starts = x[:, 0].sort().values
    assert (starts % T == 0).all()
    gaps = starts.diff()
    assert starts[0] == 0
    assert 100_003 - starts[-1] < 100
    assert gaps.min() >= 72  # of 12,500 windows every tenth
    assert gaps.max() <= 88
    everything = [
        pair for parts in split_into_windows(ids, T, max_predictions=100_002) for pair in parts[1].flatten().tolist()
    ]
    assert sorted(everything) == list(range(1, 100_003))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 100, 9973, 12_500])
def test_every_beginning_of_the_windows_is_spread_evenly(count: int) -> None:
    T = 8
    windows = torch.cat([x[:, 0] for x, _ in split_into_windows(torch.arange(count * T + 1), T)]) // T
    assert sorted(windows.tolist()) == list(range(count))
    for n in {1, 2, 3, 10, count // 3, count - 1} & set(range(1, count)):
        places = torch.cat([windows[:n], torch.tensor([count])]).sort().values
        assert places.diff().max() <= 3 * count / n + 1


@pytest.mark.parametrize("V", [7, 3000])  # of the larger vocabulary, two threads are allowed at a time
def test_threads_compute_the_losses_of_one_thread(V: int) -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=V, block_size=8, n_embd=8, n_head=2, n_layer=1, dropout=0.5))
    ids, threads = torch.randint(V, (20_011,)), torch.get_num_threads()
    one, several = ([torch.cat(parts) for parts in zip(*flatten(model, ids, n), strict=True)] for n in (1, 3))
    assert torch.equal(one[0], several[0])
    assert torch.allclose(one[1], several[1], rtol=1e-5)
    assert model.training  # dropout is on again
    assert torch.get_num_threads() == threads


def flatten(model: GPT, ids: torch.Tensor, threads: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(y.flatten(), losses.flatten()) for y, losses in iterate_losses(model, ids, threads=threads)]


def test_the_exact_loss_of_a_part_is_that_of_its_windows() -> None:
    torch.manual_seed(0)
    model = BigramLanguageModel(ModelConfig(vocab_size=7, block_size=8))
    model.token_embedding_table.weight.data.normal_(std=2)
    ids = torch.randint(7, (20_011,))
    x, y = (torch.cat(parts) for parts in zip(*split_into_windows(ids, 8, max_predictions=999), strict=True))
    assert y.numel() == 992
    expected = F.cross_entropy(model(x)[0].flatten(0, 1), y.flatten()).item()
    assert compute_exact_loss(model, ids, max_predictions=999) == pytest.approx(expected, rel=1e-6)
    for kind in (np.int64, np.uint16, np.uint32):
        assert compute_exact_loss(model, ids.numpy().astype(kind), 999) == pytest.approx(expected, rel=1e-6)


def test_units() -> None:
    assert nats_to_perplexity(math.log(65)) == pytest.approx(65)
    assert nats_to_perplexity(1e6) == math.inf
    assert nats_to_bits(math.log(65)) == pytest.approx(math.log2(65))

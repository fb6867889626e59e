"""The references that the workbook writes itself equal the package's functions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from minigpt.config import Config
from minigpt.data.dataset import Dataset, take_windows
from minigpt.finetuning.lora_layer import LoRAConfig, LowRankUpdate
from minigpt.learn.exercises import (
    average,
    batches,
    bpe_training,
    kneser_ney,
    kv_cache,
    lora,
    nf4,
    train_gpt,
    vocabulary,
)
from minigpt.model.kv_cache import KVCache
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.loss import compute_exact_loss
from minigpt.model.nf4 import dequantize_nf4, quantize_nf4, quantize_to_levels
from minigpt.model.ngram import NGramModel, compute_discounts
from minigpt.studies.ladder.rungs import CausalAverage
from minigpt.tokenizers.bpe_basic import find_merges
from minigpt.tokenizers.byte_level import BYTE_TOKENS
from minigpt.tokenizers.char import CharTokenizer


def test_the_vocabulary_is_that_of_the_character_tokenizer(text: str) -> None:
    tokenizer = CharTokenizer.from_text(text)
    stoi, itos = vocabulary.build_vocabulary(text)
    assert (stoi, itos) == (tokenizer.stoi, tokenizer.itos)
    assert vocabulary.encode(text[:100], stoi) == tokenizer.encode(text[:100])
    assert vocabulary.decode(tokenizer.encode(text), itos) == text


def test_splits_and_batches_are_those_of_the_dataset() -> None:
    ids = torch.arange(1003)
    dataset = Dataset(ids, Config())
    for ours, its in zip(batches.split_ids(ids), (dataset.train, dataset.val), strict=True):
        assert torch.equal(ours, its)
    starts = torch.tensor([3, 500, 0])
    for ours, its in zip(batches.get_batch(ids, starts, 8), take_windows(ids, starts, 8), strict=True):
        assert torch.equal(ours, its)


def test_the_averages_are_that_of_the_ladder() -> None:
    x = torch.randn(2, 7, 3)
    expected = CausalAverage()(x)
    for compute in (average.average_by_loop, average.average_by_matrix, average.average_by_softmax):
        torch.testing.assert_close(compute(x), expected)


def test_the_cache_is_the_kv_cache() -> None:
    k, v, q = torch.randn(3, 2, 1, 6, 4).unbind(0)
    ours: dict = {}
    its = KVCache()
    for first, last in ((0, 3), (3, 4), (4, 6)):
        keys, values = kv_cache.append_to_cache(ours, k[:, 0, first:last], v[:, 0, first:last])
        mask = its.build_mask(last - first, k.device)
        all_keys, all_values = its.update(0, k[:, :, first:last], v[:, :, first:last])
        assert torch.equal(keys, all_keys[:, 0])
        is_causal = mask is None and last - first > 1
        expected = nn.functional.scaled_dot_product_attention(
            q[:, :, first:last], all_keys, all_values, mask, is_causal=is_causal
        )
        torch.testing.assert_close(kv_cache.attend_to_cache(q[:, 0, first:last], keys, values), expected[:, 0])
        its.advance(last - first)


def test_the_merges_are_those_of_the_tokenizer(text: str) -> None:
    words = {word.encode(): text.split().count(word) for word in set(text.split())}
    merges = find_merges(words, 256 + 20)
    ids = {token: i for i, token in enumerate(BYTE_TOKENS)}
    as_ids = {tuple(ids[bytes([byte])] for byte in word): count for word, count in words.items()}
    tokens = list(BYTE_TOKENS)
    for first, second in bpe_training.learn_merges(as_ids, 256, 20):
        assert (tokens[first], tokens[second]) == merges[len(tokens) - 256]
        tokens.append(tokens[first] + tokens[second])


def test_lora_is_that_of_fine_tuning() -> None:
    base = nn.Linear(6, 5)
    ours, its = lora.LoRALinear(base, 2, 8.0), LowRankUpdate(base, LoRAConfig(rank=2, alpha=8.0))
    with torch.no_grad():
        for mine, other in ((ours.A, its.A), (ours.B, its.B)):
            mine.copy_(torch.randn_like(mine))
            other.copy_(mine)
    x = torch.randn(3, 6)
    torch.testing.assert_close(ours(x), base(x) + its(x, base))


@pytest.mark.parametrize("shape", [(64,), (6, 50), (3, 128)])
def test_nf4_is_that_of_quantization(shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape)
    numbers, absmax = nf4.quantize(tensor)
    its_numbers, its_absmax = quantize_to_levels(tensor, 4)
    assert torch.equal(numbers, its_numbers.long())
    assert torch.equal(absmax, its_absmax)
    torch.testing.assert_close(nf4.dequantize(numbers, absmax, shape), dequantize_nf4(*quantize_nf4(tensor), shape))


@pytest.mark.parametrize("length", [2, 5, 40, 400])
def test_kneser_ney_is_the_n_gram_model_of_order_two(length: int) -> None:
    ids = [int(i) for i in np.random.default_rng(length).geometric(0.3, length) % 11]
    model = NGramModel.fit(ids, 12, 2)
    expected = model(torch.arange(12)[None])[0][0].exp()
    np.testing.assert_allclose(kneser_ney.compute_probabilities(ids, 12), expected.numpy(), atol=1e-12)
    counts = [1, 1, 1, 2, 2, 3, 4, 9]
    assert kneser_ney.compute_discounts(counts) == pytest.approx(compute_discounts(torch.tensor(counts)))


def test_the_loss_of_the_last_exercise_is_the_exact_loss() -> None:
    model = GPTLanguageModel(
        dataclasses.replace(Config().model, vocab_size=9, n_embd=8, n_head=2, n_layer=1, block_size=8)
    )
    ids = torch.randint(9, (8 * 20 + 1,))
    assert train_gpt.measure_loss(model, ids, 8) == pytest.approx(compute_exact_loss(model, ids), rel=1e-5)


def test_the_rungs_are_those_of_the_ladder_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ladder.md").read_text()
    for name, loss in train_gpt.RUNGS:
        label = {"the lecture's GPT": "+ layer norm"}.get(name, name)
        assert any(f". {label} |" in line and f"| {loss:.4f} |" in line for line in page.splitlines()), name

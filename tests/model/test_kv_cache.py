"""Reading with a cache gives the logits of reading without one."""

import dataclasses
import random

import pytest
import torch
from naive_generation import SMALL, TOLERANCE, create_model

from minigpt.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import INITIAL_CAPACITY, ContextWindow, KVCache
from minigpt.model.lecture import GPTLanguageModel

GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)
MODERN = dataclasses.replace(SMALL, architecture="modern")
CONFIGS = pytest.mark.parametrize("config", [SMALL, GPT2, MODERN], ids=["lecture", "gpt2", "modern"])


def split_randomly(length: int, seed: int) -> list[int]:
    """Sizes of chunks that add up to a length."""
    rng, sizes = random.Random(seed), []
    while sum(sizes) < length:
        sizes.append(rng.randint(1, min(rng.choice([1, 9, 24]), length - sum(sizes))))
    return sizes


@CONFIGS
def test_a_cached_forward_of_any_chunks_has_the_logits_of_one_forward(config: ModelConfig) -> None:
    model = create_model(config)
    idx = torch.randint(23, (3, 24), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, _ = model(idx)
        for sizes in ([24], [1] * 24, [23, 1], [1, 23], *(split_randomly(24, seed) for seed in range(8))):
            cache = KVCache()
            for chunk in idx.split(sizes, dim=1):
                logits, _ = model(chunk, cache=cache)
                assert logits.shape == (3, 1, 23)
                torch.testing.assert_close(logits[:, 0], expected[:, cache.length - 1], rtol=TOLERANCE, atol=TOLERANCE)
            assert cache.length == 24


@CONFIGS
def test_with_targets_a_cached_forward_has_all_logits_and_the_loss(config: ModelConfig) -> None:
    model = create_model(config)
    idx = torch.randint(23, (2, 20), generator=torch.Generator().manual_seed(0))
    cache = KVCache()
    with torch.inference_mode():
        expected, _ = model(idx)
        model(idx[:, :7], cache=cache)
        logits, loss = model(idx[:, 7:], idx[:, 7:], cache=cache)
    torch.testing.assert_close(logits, expected[:, 7:], rtol=TOLERANCE, atol=TOLERANCE)
    expected_loss = torch.nn.functional.cross_entropy(expected[:, 7:].flatten(0, 1), idx[:, 7:].flatten())
    torch.testing.assert_close(loss, expected_loss, rtol=TOLERANCE, atol=TOLERANCE)


@CONFIGS
def test_a_window_moves_past_block_size_in_any_chunks(config: ModelConfig) -> None:
    model = create_model(config)
    idx = torch.randint(23, (3, 90), generator=torch.Generator().manual_seed(0))
    for seed in range(4):
        cached, plain = ContextWindow(model, KVCache()), ContextWindow(model, None)
        with torch.inference_mode():
            for chunk in idx.split(split_randomly(90, seed), dim=1):
                torch.testing.assert_close(cached.read(chunk), plain.read(chunk), rtol=TOLERANCE, atol=TOLERANCE)


@CONFIGS
def test_a_window_reads_the_tokens_that_were_appended(config: ModelConfig) -> None:
    model = create_model(config)
    idx = torch.randint(23, (1, 12), generator=torch.Generator().manual_seed(0))
    window = ContextWindow(model, KVCache())
    with torch.inference_mode():
        window.read(idx[:, :5])
        window.append(idx[:, 5:9])
        logits = window.read(idx[:, 9:])
        torch.testing.assert_close(logits, model(idx)[0][:, -1], rtol=TOLERANCE, atol=TOLERANCE)


@CONFIGS
def test_a_cache_that_was_reset_is_as_good_as_new(config: ModelConfig) -> None:
    model, cache = create_model(config), KVCache()
    idx = torch.randint(23, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model(idx.flip(1), cache=cache)
        cache.reset()
        model(idx[:, :10], cache=cache)
        logits, _ = model(idx[:, 10:20], cache=cache)
        torch.testing.assert_close(logits[:, 0], model(idx[:, :20])[0][:, -1], rtol=TOLERANCE, atol=TOLERANCE)


def test_a_cache_grows_and_takes_no_memory_for_a_block_size_that_only_the_config_has() -> None:
    model = create_model(MODERN)
    model.config = dataclasses.replace(MODERN, block_size=2**62)
    idx = torch.randint(23, (1, 3 * INITIAL_CAPACITY), generator=torch.Generator().manual_seed(0))
    window = ContextWindow(model, KVCache())
    with torch.inference_mode():
        for token in idx.split(1, dim=1):
            logits = window.read(token)
        torch.testing.assert_close(logits, model(idx)[0][:, -1], rtol=TOLERANCE, atol=TOLERANCE)


def test_gpt_generates_what_the_lectures_model_generates() -> None:
    lecture = create_model(dataclasses.replace(SMALL, implementation="lecture"))
    assert isinstance(lecture, GPTLanguageModel)
    gpt = GPT.from_lecture(lecture.state_dict())
    idx = torch.zeros(2, 1, dtype=torch.int64)
    texts = []
    for model in (lecture, gpt):
        torch.manual_seed(3)
        texts.append(model.generate(idx, 60))
    assert torch.equal(*texts)


def test_modern_generates_past_block_size() -> None:
    model = create_model(MODERN)
    torch.manual_seed(3)
    text = model.generate(torch.zeros(2, 1, dtype=torch.int64), 60)
    torch.manual_seed(3)
    assert text.shape == (2, 61)
    expected = torch.zeros(2, 1, dtype=torch.int64)
    for _ in range(60):
        with torch.inference_mode():
            probabilities = model(expected[:, -24:])[0][:, -1].softmax(dim=-1)
        expected = torch.cat([expected, torch.multinomial(probabilities, 1)], dim=1)
    assert torch.equal(text, expected)

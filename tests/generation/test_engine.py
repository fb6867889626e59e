"""Generation against the lecture's loop, and with a KV cache against cropping the text."""

import dataclasses

import pytest
import torch
from naive_generation import SMALL, create_model, require_same
from torch.nn import functional as F

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation.engine import STOPPED, choose_next_token, generate, stream
from minigpt.model.lecture import GPTLanguageModel

GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)
MODERN = dataclasses.replace(SMALL, architecture="modern")
CONFIG = ModelConfig(vocab_size=13, block_size=8, n_embd=16, n_head=2, n_layer=2, dropout=0.5)


@pytest.fixture
def model() -> GPTLanguageModel:
    torch.manual_seed(0)
    model = GPTLanguageModel(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def lectures_loop(model: GPTLanguageModel, idx: torch.Tensor, count: int, seed: int | None) -> torch.Tensor:
    """Crop to block_size, softmax of the last position, choose, append."""
    generator = torch.Generator().manual_seed(seed or 0)
    model.eval()
    for _ in range(count):
        logits = model(idx[:, -CONFIG.block_size :])[0][:, -1, :]
        if seed is None:
            chosen = logits.argmax(dim=-1)
        else:
            thresholds = torch.rand(len(idx), generator=generator, dtype=torch.float64)
            cumulative = F.softmax(logits.double(), dim=-1).cumsum(dim=-1)
            chosen = (cumulative < thresholds[:, None]).sum(dim=-1)
        idx = torch.cat([idx, chosen[:, None]], dim=1)
    return idx[:, -count:]


@pytest.mark.parametrize("start", [1, 5, 8, 20])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_equals_the_lectures_loop_past_block_size(model: GPTLanguageModel, start: int, seed: int | None) -> None:
    idx = torch.randint(13, (3, start), generator=torch.Generator().manual_seed(5))
    config = SamplingConfig(max_new_tokens=40, temperature=0.0 if seed is None else 1.0, seed=seed)
    assert torch.equal(generate(model, idx, config), lectures_loop(model, idx, 40, seed))


def test_the_model_is_left_as_it_was_and_dropout_is_off(model: GPTLanguageModel) -> None:
    config = SamplingConfig(max_new_tokens=30, seed=3)
    idx = torch.zeros(1, 1, dtype=torch.int64)
    first = generate(model.train(), idx, config)
    assert model.training
    assert torch.equal(first, generate(model.eval(), idx, config))
    assert not model.training


def test_the_stream_is_the_text_one_step_at_a_time(model: GPTLanguageModel) -> None:
    config = SamplingConfig(max_new_tokens=12, seed=3)
    idx = torch.zeros(2, 1, dtype=torch.int64)
    steps = stream(model, idx, config)
    pieces = [next(steps) for _ in range(3)]
    assert torch.equal(torch.stack([*pieces, *steps], dim=1), generate(model, idx, config))


def test_torchs_own_generator_is_neither_used_nor_moved(model: GPTLanguageModel) -> None:
    idx = torch.zeros(1, 1, dtype=torch.int64)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = generate(model, idx, SamplingConfig(max_new_tokens=20, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first, generate(model, idx, SamplingConfig(max_new_tokens=20, seed=3)))


def test_without_a_seed_two_texts_differ(model: GPTLanguageModel) -> None:
    idx = torch.zeros(1, 1, dtype=torch.int64)
    config = SamplingConfig(max_new_tokens=60)
    assert not torch.equal(generate(model, idx, config), generate(model, idx, config))


def test_filters_apply_in_the_usual_order() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]]).expand(1000, -1)
    uniforms = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for config, possible in (
        (SamplingConfig(top_k=2), {0, 1}),
        (SamplingConfig(top_p=0.7), {0, 1}),
        (SamplingConfig(top_p=0.6), {0}),
        (SamplingConfig(temperature=4.0, top_p=0.6), {0, 1, 2}),  # flattened first, then cut
        (SamplingConfig(temperature=4.0, top_k=3, top_p=0.9), {0, 1, 2}),
        (SamplingConfig(temperature=0), {0}),
        (SamplingConfig(temperature=1e-300), {0}),
    ):
        assert set(choose_next_token(logits, config, uniforms).tolist()) == possible, config


@pytest.mark.parametrize("config", [GPT2, MODERN], ids=["gpt2", "modern"])
@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 0}, {"seed": 1, "temperature": 0.7, "top_k": 5}, {"seed": 2, "top_p": 0.8}],
    ids=["greedy", "top-k", "top-p"],
)
def test_a_long_text_is_that_of_naive_cropping(config: ModelConfig, sampling: dict) -> None:
    idx = torch.zeros(1, 1, dtype=torch.int64)
    config_of_text = SamplingConfig(max_new_tokens=100, **sampling)
    require_same(create_model(config), idx, config_of_text, lambda window, tokens: None)


@pytest.mark.parametrize("start", [1, 23, 24, 25, 60])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("config", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_any_prompt_and_any_number_of_rows(config: ModelConfig, rows: int, start: int) -> None:
    idx = torch.randint(23, (rows, start), generator=torch.Generator().manual_seed(start))
    config_of_text = SamplingConfig(max_new_tokens=30, seed=4)
    require_same(create_model(config), idx, config_of_text, lambda window, tokens: None)


def test_rows_end_at_their_stop_token_and_the_others_continue() -> None:
    model, idx = create_model(SMALL), torch.randint(23, (6, 3), generator=torch.Generator().manual_seed(0))
    config = SamplingConfig(max_new_tokens=80, seed=5)
    whole = generate(model, idx, config)
    stop = {3, 8}
    cut = generate(model, idx, config, stop)
    ends = []
    for row, with_stop in zip(whole.tolist(), cut.tolist(), strict=True):
        end = next((n for n, token in enumerate(row) if token in stop), len(row))
        assert with_stop[:end] == row[: min(end, len(with_stop))]
        assert set(with_stop[end:]) <= {STOPPED}
        ends.append(end)
    assert cut.shape[1] == max(ends)
    assert len(set(ends)) > 1


def test_a_text_that_stops_at_once_is_empty() -> None:
    idx = torch.zeros(2, 1, dtype=torch.int64)
    assert generate(create_model(SMALL), idx, SamplingConfig(seed=0), stop=range(23)).shape == (2, 0)


def test_a_stream_that_is_closed_leaves_the_model_as_it_was() -> None:
    model = create_model(SMALL).train()
    steps = stream(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=500, seed=0))
    next(steps)
    next(steps)
    steps.close()
    assert model.training


def test_a_stream_changes_no_mode_between_its_tokens() -> None:
    model = GPTLanguageModel(ModelConfig(vocab_size=5, n_embd=8, n_head=2, n_layer=1, block_size=8, dropout=0.5))
    tokens = stream(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=20, seed=0))
    next(tokens)
    assert model.training
    model.eval()
    next(tokens)
    del tokens  # abandoned: its end must not switch dropout on again
    assert not model.training

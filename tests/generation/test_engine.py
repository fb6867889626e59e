"""Generation against the lecture's loop, written out."""

import pytest
import torch
from torch.nn import functional as F

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation.engine import generate, next_token, stream
from minigpt.model.lecture import GPTLanguageModel

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
        assert set(next_token(logits, config, uniforms).tolist()) == possible, config

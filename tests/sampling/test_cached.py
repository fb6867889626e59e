"""Every faster way to write a text, held against the naive one: the last block_size tokens through the whole model."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.model.gpt import GPT
from minigpt.sampling import engine
from minigpt.sampling.cached import CachedReader, PlainReader
from minigpt.sampling.engine import STOPPED, generate, next_token, stream

SMALL = ModelConfig(vocab_size=23, block_size=24, n_embd=16, n_head=2, n_layer=3)
GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)
LONG = dataclasses.replace(SMALL, block_size=512, n_embd=32)
TOLERANCE = 1e-5


def make(config: ModelConfig) -> GPT:
    torch.manual_seed(1)
    model = GPT(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3, mean=1.0 if ".ln" in name and "weight" in name else 0.0)
    return model.eval()


@pytest.fixture(autouse=True)
def loops_from_the_first_token_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WORTH_COMPILING", 1)


@pytest.fixture
def only_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "decode", lambda: None)


def naive(model: GPT, idx: torch.Tensor, config: SamplingConfig) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The lecture's loop: each step's tokens (B,) and the probabilities (B, V) that they were drawn from."""
    generator = torch.Generator().manual_seed(config.seed or 0)
    for _ in range(config.max_new_tokens):
        with torch.inference_mode():
            logits = model(idx[:, -model.config.block_size :])[0][:, -1]
        chosen = next_token(logits, config, torch.rand(len(idx), generator=generator, dtype=torch.float64))
        yield chosen, logits.softmax(dim=-1)
        idx = torch.cat([idx, chosen[:, None]], dim=1)


def require_same(model: GPT, idx: torch.Tensor, config: SamplingConfig) -> None:
    """The same tokens; or, at a row's first that differs, two choices whose order rounding alone may decide."""
    found = generate(model, idx, config)
    assert found.shape == (len(idx), config.max_new_tokens)
    alike = torch.ones(len(idx), dtype=torch.bool)
    for n, (chosen, probabilities) in enumerate(naive(model, idx, config)):
        for row in (alike & (chosen != found[:, n])).nonzero().flatten().tolist():
            read = torch.cat([idx, found[:, :n]], dim=1)
            logits = CachedReader(model, len(idx)).read(read)  # where ours stood then
            assert (logits.softmax(dim=-1)[row] - probabilities[row]).abs().max() < TOLERANCE
            ours, theirs = probabilities[row, found[row, n]], probabilities[row, chosen[row]]
            assert config.temperature > 0 or abs(ours - theirs) < TOLERANCE
            alike[row] = False
        if not alike.any():
            return


@pytest.mark.parametrize("config", [SMALL, GPT2, LONG], ids=["lecture", "gpt2", "long"])
@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 0}, {"seed": 0}, {"seed": 1, "temperature": 0.7, "top_k": 5}, {"seed": 2, "top_p": 0.8}],
    ids=["greedy", "sampled", "top-k", "top-p"],
)
def test_two_thousand_tokens_are_those_of_naive_cropping(config: ModelConfig, sampling: dict) -> None:
    model = make(config)
    tokens = 2000 if config is SMALL else 600  # past the window in either case
    require_same(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=tokens, **sampling))


@pytest.mark.parametrize("start", [1, 23, 24, 25, 60])
@pytest.mark.parametrize("rows", [1, 5])
def test_any_prompt_and_any_number_of_rows(rows: int, start: int, only_pytorch: None) -> None:
    idx = torch.randint(23, (rows, start), generator=torch.Generator().manual_seed(start))
    require_same(make(GPT2), idx, SamplingConfig(max_new_tokens=60, seed=4))


@pytest.mark.parametrize("start", [1, 11, 23, 24, 40])
def test_the_compiled_loops_take_any_prompt(start: int) -> None:
    idx = torch.randint(23, (1, start), generator=torch.Generator().manual_seed(start))
    require_same(make(SMALL), idx, SamplingConfig(max_new_tokens=50, seed=4))


@pytest.mark.parametrize(
    "config", [ModelConfig(vocab_size=2, block_size=1, n_embd=1, n_head=1, n_layer=1), SMALL, GPT2]
)
def test_compiled_logits_are_those_of_the_model(config: ModelConfig) -> None:
    from minigpt.sampling import decode

    model = make(config)
    weights, relu = decode.weights_of(model), config.activation == "relu"
    idx = torch.randint(config.vocab_size, (config.block_size,), generator=torch.Generator().manual_seed(0))
    head_size = config.n_embd // config.n_head
    keys, values = torch.full((2, config.n_layer, config.n_head, head_size, config.block_size), torch.nan).numpy()
    logits = torch.empty(config.vocab_size)
    for position, token in enumerate(idx.tolist()):
        decode.step(weights, relu, keys, values, token, position, logits.numpy())
        expected = model(idx[None, : position + 1])[0][0, -1]
        torch.testing.assert_close(logits, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("config", [SMALL, GPT2])
def test_a_cache_read_piece_by_piece_gives_the_whole_model_s_logits(config: ModelConfig) -> None:
    model = make(config)
    idx = torch.randint(23, (3, 40), generator=torch.Generator().manual_seed(0))
    cached, plain = CachedReader(model, 3), PlainReader(model)
    with torch.inference_mode():
        for piece in (idx[:, :7], *idx[:, 7:].split(1, dim=1)):
            torch.testing.assert_close(cached.read(piece), plain.read(piece), rtol=TOLERANCE, atol=TOLERANCE)


def test_rows_end_where_their_stop_token_comes_and_the_others_go_on() -> None:
    model, idx = make(SMALL), torch.randint(23, (6, 3), generator=torch.Generator().manual_seed(0))
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
    assert generate(make(SMALL), idx, SamplingConfig(seed=0), stop=range(23)).shape == (2, 0)


def test_without_numba_the_same_text_comes_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model, idx = make(SMALL), torch.zeros(1, 1, dtype=torch.int64)
    config = SamplingConfig(max_new_tokens=50, temperature=0)
    expected = generate(model, idx, config)

    def fail() -> None:
        raise RuntimeError("cannot cache function 'step': no locator available\nfor a file")

    engine.decode.cache_clear()
    monkeypatch.setattr("minigpt.sampling.decode.warm_up", fail)
    try:
        with pytest.warns(UserWarning, match=r"with PyTorch.*Numba does not work here \(cannot cache .* available\)"):
            assert torch.equal(generate(model, idx, config), expected)
        assert torch.equal(generate(model, idx, config), expected)  # and says so once
    finally:
        engine.decode.cache_clear()


def test_a_stream_given_up_leaves_the_model_as_it_was() -> None:
    model = make(SMALL).train()
    steps = stream(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=500, seed=0))
    next(steps)
    next(steps)
    steps.close()
    assert model.training


def test_loops_and_filters_cut_alike_where_logits_are_equal() -> None:
    from minigpt.sampling import decode

    rng = torch.Generator().manual_seed(0)
    for seed in range(300):
        logits = torch.randint(-3, 3, (1, 20), generator=rng).float() / 2  # many are equal
        config = SamplingConfig(top_p=0.7, top_k=(None, 8)[seed % 2], temperature=0.9)
        uniform = torch.rand(1, generator=rng, dtype=torch.float64)
        choice = decode.Choice(config.temperature, config.top_k or 0, config.top_p)
        assert decode.choose(logits[0].numpy(), choice, float(uniform)) == int(next_token(logits, config, uniform))


def test_a_short_text_or_a_short_window_is_not_worth_loading_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WORTH_COMPILING", 20)
    model, reader = make(SMALL), CachedReader(make(SMALL), 1)
    assert engine.suits_loops(reader, SamplingConfig(max_new_tokens=20))
    assert not engine.suits_loops(reader, SamplingConfig(max_new_tokens=19))
    with torch.inference_mode():
        reader.read(torch.zeros(1, 5, dtype=torch.int64))  # 19 places are left
    assert not engine.suits_loops(reader, SamplingConfig(max_new_tokens=500))
    assert not engine.suits_loops(CachedReader(model, 2), SamplingConfig(max_new_tokens=500))

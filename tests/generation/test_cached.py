"""Every faster way to write a text, held against the naive one: the last block_size tokens through the whole model."""

import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation import backend_selection as path
from minigpt.generation import engine
from minigpt.generation.cached import Cache, CachedReader, PlainReader, read
from minigpt.generation.engine import STOPPED, generate, next_token, reader_of, stream
from minigpt.kernels.cuda_graph import step
from minigpt.model import TrainedModel, build
from minigpt.model.gpt import GPT
from minigpt.model.int8 import to_8_bits

SMALL = ModelConfig(vocab_size=23, block_size=24, n_embd=16, n_head=2, n_layer=3)
GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)
MODERN = dataclasses.replace(SMALL, architecture="modern")
LONG = dataclasses.replace(SMALL, block_size=512, n_embd=32)
TOLERANCE = 1e-5


def make(config: ModelConfig) -> Any:
    torch.manual_seed(1)
    model = build(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3, mean=1.0 if ".ln" in name and "weight" in name else 0.0)
    return model.eval()


@pytest.fixture(autouse=True)
def loops_from_the_first_token_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "WORTH_COMPILING", 1)


@pytest.fixture
def only_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "compiled_loops", lambda loops: None)


def naive(
    model: TrainedModel, idx: torch.Tensor, config: SamplingConfig
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The lecture's loop: each step's tokens (B,) and the probabilities (B, V) that they were drawn from."""
    generator = torch.Generator().manual_seed(config.seed or 0)
    for _ in range(config.max_new_tokens):
        with torch.inference_mode():
            logits = model(idx[:, -model.config.block_size :])[0][:, -1]
        chosen = next_token(logits, config, torch.rand(len(idx), generator=generator, dtype=torch.float64))
        yield chosen, logits.softmax(dim=-1)
        idx = torch.cat([idx, chosen[:, None]], dim=1)


def require_same(model: TrainedModel, idx: torch.Tensor, config: SamplingConfig) -> None:
    """The same tokens; or, at a row's first that differs, two choices whose order rounding alone may decide."""
    found = generate(model, idx, config)
    assert found.shape == (len(idx), config.max_new_tokens)
    alike = torch.ones(len(idx), dtype=torch.bool)
    for n, (chosen, probabilities) in enumerate(naive(model, idx, config)):
        for row in (alike & (chosen != found[:, n])).nonzero().flatten().tolist():
            read = torch.cat([idx, found[:, :n]], dim=1)
            logits = reader_of(model, len(idx)).read(read)  # where ours stood then
            assert (logits.softmax(dim=-1)[row] - probabilities[row]).abs().max() < TOLERANCE
            ours, theirs = probabilities[row, found[row, n]], probabilities[row, chosen[row]]
            assert config.temperature > 0 or abs(ours - theirs) < TOLERANCE
            alike[row] = False
        if not alike.any():
            return


@pytest.mark.parametrize("config", [SMALL, GPT2, LONG, MODERN], ids=["lecture", "gpt2", "long", "modern"])
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
@pytest.mark.parametrize("config", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_any_prompt_and_any_number_of_rows(config: ModelConfig, rows: int, start: int, only_pytorch: None) -> None:
    idx = torch.randint(23, (rows, start), generator=torch.Generator().manual_seed(start))
    require_same(make(config), idx, SamplingConfig(max_new_tokens=60, seed=4))


@pytest.mark.parametrize("start", [1, 11, 23, 24, 40])
def test_the_compiled_loops_take_any_prompt(start: int) -> None:
    idx = torch.randint(23, (1, start), generator=torch.Generator().manual_seed(start))
    require_same(make(SMALL), idx, SamplingConfig(max_new_tokens=50, seed=4))


@pytest.mark.parametrize("start", [1, 11, 23, 24, 40])
@pytest.mark.parametrize("config", [SMALL, GPT2], ids=["lecture", "gpt2"])
def test_loops_in_parts_take_any_prompt_too(config: ModelConfig, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "WORTH_SHARING", 1)
    idx = torch.randint(23, (1, start), generator=torch.Generator().manual_seed(start))
    require_same(make(config), idx, SamplingConfig(max_new_tokens=50, seed=4))


@pytest.mark.parametrize("window", [True, False], ids=["window-loops", "window-by-pytorch"])
@pytest.mark.parametrize("sharing", [1, 2**62], ids=["parts", "whole"])
@pytest.mark.parametrize("config", [SMALL, GPT2], ids=["lecture", "gpt2"])
def test_matrices_in_8_bits_write_what_they_stand_for(
    config: ModelConfig, sharing: int, window: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "WORTH_SHARING", sharing)
    monkeypatch.setattr(path, "LARGEST_WINDOW", 2**62 if window else 0)
    model = to_8_bits(make(config))
    require_same(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=60, seed=4))


SHAPES = [
    ModelConfig(vocab_size=2, block_size=1, n_embd=1, n_head=1, n_layer=1),
    ModelConfig(vocab_size=5, block_size=37, n_embd=30, n_head=6, n_layer=2, qkv_bias=True, activation="gelu"),
    SMALL,
    GPT2,
]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("config", SHAPES)
def test_compiled_logits_of_a_token_are_the_model_s(config: ModelConfig, parts: int) -> None:
    from minigpt.kernels import numba_decode as decode
    from minigpt.kernels import numba_ops as loops

    if config.n_head % parts:
        return
    model = make(config)
    weights, relu = loops.weights_of(model, parts), config.activation == "relu"
    scratch = decode.scratch(weights)
    idx = torch.randint(config.vocab_size, (config.block_size,), generator=torch.Generator().manual_seed(0))
    head_size = config.n_embd // config.n_head
    keys, values = torch.full((2, config.n_layer, config.n_head, head_size, config.block_size), torch.nan).numpy()
    step = decode.step if parts == 1 else decode.step_in_parts
    for position, token in enumerate(idx.tolist()):
        step(weights, relu, keys, values, scratch, token, position)
        logits = torch.from_numpy(scratch.logits).flatten()[: config.vocab_size]
        expected = model(idx[None, : position + 1])[0][0, -1]
        torch.testing.assert_close(logits, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("config", SHAPES)
def test_compiled_logits_of_a_window_are_the_model_s(config: ModelConfig) -> None:
    from minigpt.kernels import numba_ops as loops
    from minigpt.kernels import numba_window as window

    model = make(config)
    weights = loops.weights_of(model)
    scratch = window.scratch(weights, config.n_head)
    for array in scratch:
        array.fill(-1 if array.dtype == int else math.nan)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        idx = torch.randint(config.vocab_size, (config.block_size,), generator=generator)
        window.read(weights, config.activation == "relu", scratch, idx.numpy())
        expected = model(idx[None])[0][0, -1]
        torch.testing.assert_close(torch.from_numpy(scratch.logits), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_number_of_threads_changes_no_token() -> None:
    code = """
import torch
from minigpt.config import ModelConfig, SamplingConfig
from minigpt.model.gpt import GPT
from minigpt.generation import backend_selection as path
from minigpt.generation.engine import generate
path.WORTH_COMPILING = path.WORTH_SHARING = 1
torch.manual_seed(0)
model = GPT(ModelConfig(vocab_size=23, block_size=24, n_embd=16, n_head=2, n_layer=3))
print(generate(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=99, seed=0)).tolist())
"""
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in "12"
    }
    assert len(texts) == 1


@pytest.mark.parametrize("config", [SMALL, GPT2, MODERN])
def test_a_cache_read_piece_by_piece_gives_the_whole_model_s_logits(config: ModelConfig) -> None:
    model = make(config)
    idx = torch.randint(23, (3, 40), generator=torch.Generator().manual_seed(0))
    cached, plain = reader_of(model, 3), PlainReader(model)
    with torch.inference_mode():
        for piece in (idx[:, :7], *idx[:, 7:].split(1, dim=1)):
            torch.testing.assert_close(cached.read(piece), plain.read(piece), rtol=TOLERANCE, atol=TOLERANCE)


def test_a_window_that_only_the_config_has_takes_no_memory() -> None:
    whole, endless = make(dataclasses.replace(MODERN, block_size=200)), make(MODERN)
    endless.config = dataclasses.replace(MODERN, block_size=2**62)
    idx, sampling = torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=150, seed=1)
    assert torch.equal(generate(endless, idx, sampling), generate(whole, idx, sampling))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("config", [SMALL, GPT2])
def test_the_step_of_fixed_shapes_is_the_same_one(config: ModelConfig, rows: int) -> None:
    model = make(config)
    idx = torch.randint(config.vocab_size, (rows, config.block_size))
    grown, fixed = Cache(model, rows), Cache(model, rows)
    with torch.inference_mode():
        for cache in (grown, fixed):
            read(model, idx[:, :5], cache)
        for n in range(5, config.block_size):
            expected = read(model, idx[:, n : n + 1], grown)
            found = step(model, idx[:, n : n + 1], torch.tensor([n]), fixed)
            assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_recorded_step_writes_what_naive_cropping_does() -> None:
    model = make(SMALL).cuda()
    require_same(model, torch.zeros(3, 1, dtype=torch.int64, device="cuda"), SamplingConfig(max_new_tokens=60, seed=2))


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

    def fail(loops: path.Loops) -> None:
        raise RuntimeError("cannot cache function 'step': no locator available\nfor a file")

    engine.compiled_loops.cache_clear()
    monkeypatch.setattr("minigpt.kernels.numba_stream.warm_up", fail)
    try:
        with pytest.warns(UserWarning, match=r"with PyTorch.*Numba does not work here \(cannot cache .* available\)"):
            assert torch.equal(generate(model, idx, config), expected)
        assert torch.equal(generate(model, idx, config), expected)  # and says so once
    finally:
        engine.compiled_loops.cache_clear()


def test_what_was_set_for_pytorch_stays() -> None:
    code = """
import torch
from minigpt.config import ModelConfig, SamplingConfig
from minigpt.model.gpt import GPT
from minigpt.generation import backend_selection as path
from minigpt.generation.engine import generate
path.WORTH_COMPILING = path.WORTH_SHARING = 1
torch.manual_seed(0)
model = GPT(ModelConfig(vocab_size=23, block_size=24, n_embd=16, n_head=2, n_layer=3))
for parameter in model.parameters():
    torch.nn.init.normal_(parameter)
idx, config = torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=60, seed=0)
torch.set_num_threads(1)
expected = generate(model, idx, config)
assert torch.get_num_threads() == 1
torch.set_default_dtype(torch.float64)
assert torch.equal(generate(model, idx, config), expected)
print("as it was")
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "as it was\n", done.stderr


def test_a_compiler_switched_off_is_said_and_pytorch_writes() -> None:
    code = """
import torch
from minigpt.config import ModelConfig, SamplingConfig
from minigpt.model.gpt import GPT
from minigpt.generation.engine import generate
generate(GPT(ModelConfig()), torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=200, seed=0))
"""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Numba does not work here (NUMBA_DISABLE_JIT switches its compiler off)" in done.stderr


def test_what_was_compiled_is_kept_by_the_version_of_the_loops() -> None:
    from minigpt.kernels import numba_decode as decode
    from minigpt.kernels import numba_ops as loops
    from minigpt.kernels import numba_window as window

    for function in (decode.write, window.write, loops.choose, loops.largest):
        assert f"compiled-{loops.version()}" in Path(function.stats.cache_path).parts


def test_a_stream_given_up_leaves_the_model_as_it_was() -> None:
    model = make(SMALL).train()
    steps = stream(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=500, seed=0))
    next(steps)
    next(steps)
    steps.close()
    assert model.training


def test_loops_and_filters_choose_alike_where_logits_are_equal() -> None:
    from minigpt.kernels import numba_ops as loops

    rng = torch.Generator().manual_seed(0)
    for seed in range(300):
        logits = torch.randint(-3, 3, (1, 20), generator=rng).float() / 2  # many are equal
        config = SamplingConfig(
            top_p=(None, 0.7, 0.01)[seed % 3],
            top_k=(None, 8, 1, 99)[seed % 4],
            temperature=(0.9, 1e-300)[seed % 5 == 0],
        )
        uniform = torch.rand(1, generator=rng, dtype=torch.float64)
        choice = loops.Choice(config.temperature, config.top_k or 0, config.top_p or 1.0)
        assert loops.choose(logits[0].numpy(), choice, float(uniform)) == int(next_token(logits, config, uniform))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 250])
def test_the_largest_number_is_found_among_bits(size: int) -> None:
    from minigpt.kernels import numba_ops as loops

    for scale in (1, 1e-40, 1e30):
        for shift in (-3, 0, 3):
            x = scale * (torch.randn(size, generator=torch.Generator().manual_seed(size)) + shift)
            assert loops.largest(x.numpy()) == float(x.max())
    infinite = torch.full((size,), -math.inf)
    assert loops.largest(infinite.numpy()) == -math.inf


def test_which_loops_a_model_is_written_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "WORTH_COMPILING", 20)

    def rule(model: GPT, tokens: int, rows: int = 1, read: int = 0) -> path.Loops | None:
        reader = CachedReader(model, rows)
        if read:
            with torch.inference_mode():
                reader.read(torch.zeros(rows, read, dtype=torch.int64))
        return path.loops_for(reader, tokens)

    assert rule(make(SMALL), 20) == path.Loops(parts=1, eight_bits=False, window=False)
    assert rule(make(SMALL), 19) is None  # too few
    assert rule(make(SMALL), 30) == path.Loops(parts=1, eight_bits=False, window=True)
    assert rule(make(SMALL), 20, read=24) == path.Loops(parts=1, eight_bits=False, window=True)
    assert rule(to_8_bits(make(GPT2)), 20) == path.Loops(parts=1, eight_bits=True, window=False, tied=True)
    assert rule(make(SMALL), 20, rows=2) is None
    assert rule(make(SMALL).double(), 20) is None
    monkeypatch.setattr(path, "LARGEST_WINDOW", 0)
    assert rule(make(SMALL), 500, read=5) is None  # 19 places are left
    assert rule(make(SMALL), 500, read=4) == path.Loops(parts=1, eight_bits=False, window=False)
    monkeypatch.setattr(path, "WORTH_SHARING", 1)
    assert rule(make(SMALL), 500, read=4) == path.Loops(parts=2, eight_bits=False, window=False)
    assert rule(make(dataclasses.replace(SMALL, n_head=1)), 500) == path.Loops(1, eight_bits=False, window=False)
    hooked, other = make(SMALL), make(SMALL)
    hooked.blocks[0].ffwd.register_forward_hook(lambda *_: None)
    other.ln_f.eps = 1e-6
    assert rule(hooked, 500) is rule(other, 500) is None
    adapted = make(SMALL)
    adapted.blocks[0].ffwd.up = nn.Sequential(adapted.blocks[0].ffwd.up)  # type: ignore[assignment]
    assert rule(adapted, 500) is None  # something that the loops don't know
    monkeypatch.setattr(path, "MOST_PARAMETERS", 100)
    assert rule(make(SMALL), 500) is None

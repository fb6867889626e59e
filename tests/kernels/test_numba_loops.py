"""Numba's loops against the naive way to generate and against the model's own logits."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_process import hide_module, run_code
from naive_generation import SMALL, TOLERANCE, create_model, require_same
from torch import nn

from minigpt.acceleration import build_decoder
from minigpt.config import ModelConfig, SamplingConfig
from minigpt.finetuning.lora import apply_lora
from minigpt.generation.engine import choose_next_token
from minigpt.kernels import numba_decode, numba_forward, numba_jit, numba_ops, numba_sampling
from minigpt.kernels.decoder_selection import Limits, select_loops
from minigpt.kernels.numba_matvec import FLOAT32, INT8, NF4
from minigpt.kernels.numba_rows import ModernRowsDecoder, RowsDecoder
from minigpt.kernels.numba_weights import extract_weights
from minigpt.model.gpt import FeedForward
from minigpt.model.kv_cache import ContextWindow, KVCache
from minigpt.model.quantization import quantize_layers

UNTIED = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True)
GPT2 = dataclasses.replace(UNTIED, tied_head=True)
LONG = dataclasses.replace(SMALL, block_size=75, n_embd=32)  # two chunks of tokens and a part of one
MODERN = dataclasses.replace(SMALL, architecture="modern")
ALWAYS = Limits(min_tokens=1, start_tokens=1)
IN_PARTS = ALWAYS._replace(min_shared_weights=1)
WITHOUT_WINDOWS = ALWAYS._replace(max_window=0)
START = torch.zeros(1, 1, dtype=torch.int64)
GREEDY = numba_sampling.Sampling(temperature=0.0, top_k=0, top_p=1.0)


def build(limits: Limits) -> Any:
    """The decoder for these limits, as an argument for the engine."""
    return functools.partial(build_decoder, limits=limits)


@pytest.mark.parametrize("config", [SMALL, GPT2, LONG, MODERN], ids=["lecture", "gpt2", "long", "modern"])
@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 0}, {"seed": 0}, {"seed": 1, "temperature": 0.7, "top_k": 5}, {"seed": 2, "top_p": 0.8}],
    ids=["greedy", "sampled", "top-k", "top-p"],
)
def test_tokens_past_the_window_are_those_of_naive_cropping(config: ModelConfig, sampling: dict) -> None:
    tokens = config.block_size + 60
    require_same(create_model(config), START, SamplingConfig(max_new_tokens=tokens, **sampling), build(ALWAYS))


@pytest.mark.parametrize("start", [1, 20, 24, 30])
@pytest.mark.parametrize("rows", [2, 3, 35])
@pytest.mark.parametrize("config", [SMALL, GPT2, MODERN], ids=["lecture", "gpt2", "modern"])
def test_several_texts_are_generated_together(config: ModelConfig, rows: int, start: int) -> None:
    idx = torch.randint(23, (rows, start), generator=torch.Generator().manual_seed(start))
    decoders = build(ALWAYS), build(WITHOUT_WINDOWS)
    require_same(create_model(config), idx, SamplingConfig(max_new_tokens=30, seed=4), *decoders)


@pytest.mark.parametrize("start", [1, 11, 23, 24, 40])
@pytest.mark.parametrize("config", [SMALL, GPT2, MODERN], ids=["lecture", "gpt2", "modern"])
def test_the_loops_take_any_prompt(config: ModelConfig, start: int) -> None:
    idx = torch.randint(23, (1, start), generator=torch.Generator().manual_seed(start))
    decoders = build(ALWAYS), build(IN_PARTS)
    require_same(create_model(config), idx, SamplingConfig(max_new_tokens=50, seed=4), *decoders)


@pytest.mark.parametrize("config", [SMALL, GPT2, UNTIED], ids=["lecture", "gpt2", "untied"])  # GPT-2's head is tied
def test_a_model_in_int8_generates_the_text_of_its_dequantized_weights(config: ModelConfig) -> None:
    model = create_model(config)
    quantize_layers(model, "int8")
    decoders = [build(limits._replace(max_window=size)) for limits in (ALWAYS, IN_PARTS) for size in (2**31, 0)]
    require_same(model, START, SamplingConfig(max_new_tokens=60, seed=4), *decoders)


@pytest.mark.parametrize(
    ("quantization", "options"),
    [
        ("nf4", None),
        (None, {}),
        (None, {"dora": True, "targets": ["qkv", "lm_head"]}),
        ("nf4", {}),
        ("int8", {"targets": ["up"]}),
    ],
    ids=["nf4", "lora", "dora", "qlora", "int8 with an adapter"],
)
def test_a_model_in_four_bits_or_with_adapters_generates_the_text_of_pytorch(
    quantization: str | None, options: dict | None
) -> None:
    model = create_model(SMALL)
    if quantization is not None:
        quantize_layers(model, quantization)
    if options is not None:
        apply_lora(model, rank=2, **options)
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                torch.nn.init.normal_(parameter)
    assert select_loops(model, 1, 0, 60, ALWAYS) is not None
    require_same(model.eval(), START, SamplingConfig(max_new_tokens=60, seed=4), build(ALWAYS))


SHAPES = [
    ModelConfig(vocab_size=2, block_size=1, n_embd=1, n_head=1, n_layer=1),
    ModelConfig(vocab_size=5, block_size=37, n_embd=30, n_head=6, n_layer=2, qkv_bias=True, activation="gelu_exact"),
    SMALL,
    GPT2,
]


def require_logits(model: Any, parts: int, kind: int) -> None:
    """Require the model's own logits after each token of a text that fills the context window."""
    config = model.config
    memory = numba_decode.Memory(extract_weights(model, parts))
    assert memory.shape.kind == kind
    memory.keys.fill_(math.nan)
    memory.values.fill_(math.nan)
    idx = torch.randint(config.vocab_size, (config.block_size,), generator=torch.Generator().manual_seed(0))
    for position, token in enumerate(idx.tolist()):
        if parts == 1:
            numba_decode.decode_tokens(*memory.arguments, token, position, GREEDY, np.zeros(1))
        else:
            numba_decode.decode_token_in_parts(*memory.arguments, token, position)
        expected = model(idx[None, : position + 1])[0][0, -1]
        largest = max(1, expected.abs().max().item())
        torch.testing.assert_close(torch.from_numpy(memory.logits), expected, rtol=TOLERANCE, atol=TOLERANCE * largest)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("config", SHAPES)
def test_compiled_logits_of_a_token_are_the_model_s(config: ModelConfig, parts: int) -> None:
    if config.n_head % parts == 0:
        require_logits(create_model(config), parts, FLOAT32)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("quantization", "kind"), [("int8", INT8), ("nf4", NF4)])
@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
def test_quantized_matrices_are_read_as_they_are(quantization: Any, kind: int, parts: int, tied: bool) -> None:
    config = ModelConfig(vocab_size=70, block_size=6, n_embd=384, n_head=2, n_layer=1, tied_head=tied)
    model = create_model(config)
    quantize_layers(model, quantization)
    require_logits(model, parts, kind)


@pytest.mark.parametrize("quantization", [None, "int8", "nf4", "lora"])
@pytest.mark.parametrize("block_size", [1, 2, 70])
def test_a_modern_of_any_shape_generates_the_text_of_pytorch(quantization: Any, block_size: int) -> None:
    model = create_model(dataclasses.replace(MODERN, block_size=block_size, n_embd=36, n_head=3))
    if quantization == "lora":
        apply_lora(model, rank=2)
    elif quantization is not None:
        quantize_layers(model, quantization)
    assert select_loops(model.eval(), 1, 0, 60, ALWAYS) is not None
    require_same(model, START, SamplingConfig(max_new_tokens=90, seed=4), build(ALWAYS))


def test_a_small_model_in_four_bits_is_read_as_float32() -> None:
    model = create_model(ModelConfig(vocab_size=5, block_size=6, n_embd=64, n_head=1, n_layer=1))
    quantize_layers(model, "nf4")
    require_logits(model, 1, FLOAT32)


@pytest.mark.parametrize("config", SHAPES)
def test_compiled_logits_of_windows_are_the_model_s(config: ModelConfig) -> None:
    model, rows = create_model(config), 5
    idx = torch.randint(config.vocab_size, (rows, config.block_size), generator=torch.Generator().manual_seed(0))
    window = ContextWindow(model, KVCache())
    window.read(idx)
    decoder = RowsDecoder(window, threads=2)
    for scratch in decoder.scratch:
        scratch[decoder.layouts[config.block_size][1].panel :] = math.nan
    for seed in range(3):
        tokens = torch.randint(config.vocab_size, (rows,), generator=torch.Generator().manual_seed(seed))
        idx = torch.cat([idx[:, 1:], tokens[:, None]], dim=1)
        found = torch.from_numpy(decoder.read(tokens.numpy()))
        torch.testing.assert_close(found, model(idx)[0][:, -1], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("config", "kind"), [(SMALL, RowsDecoder), (GPT2, RowsDecoder), (MODERN, ModernRowsDecoder)])
def test_compiled_logits_of_rows_are_the_model_s_until_the_window_moves_and_later(
    config: ModelConfig, kind: Any, rows: int, threads: int
) -> None:
    model, rng = create_model(config), torch.Generator().manual_seed(0)
    idx = torch.randint(config.vocab_size, (rows, 2 * config.block_size), generator=rng)
    window = ContextWindow(model, KVCache())
    window.read(idx[:, :3])
    decoder = kind(window, threads)
    for n in range(3, idx.shape[1]):
        found = torch.from_numpy(decoder.read(idx[:, n].numpy()))
        expected = model(idx[:, max(0, n + 1 - config.block_size) : n + 1])[0][:, -1]
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


CODE = """
import functools, torch
from minigpt.acceleration import build_decoder
from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation.engine import generate
from minigpt.kernels.decoder_selection import Limits, select_loops
from minigpt.model.gpt import GPT
torch.manual_seed(0)
model = GPT(ModelConfig(vocab_size=23, block_size=24, n_embd=16, n_head=2, n_layer=3))
for parameter in model.parameters():
    torch.nn.init.normal_(parameter)
decoder = functools.partial(build_decoder, limits=Limits(min_tokens=1, start_tokens=1, min_shared_weights=1))
idx, config = torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=99, seed=0)
"""


def test_the_number_of_threads_changes_no_token_and_pytorchs_settings_stay(tmp_path: Path) -> None:
    start = """
import numba, numpy, os
os.environ["NUMBA_NUM_THREADS"] = str(threads)
numba.config.reload_config()  # as if Numba started with this variable
torch.set_num_threads(threads)
"""
    code = """
expected = generate(model, idx, config, build_decoder=decoder)
numpy.save(file, expected.numpy())
torch.set_num_threads(1)
assert torch.equal(generate(model, idx, config, build_decoder=decoder), expected)
assert torch.get_num_threads() == 1
torch.set_default_dtype(torch.float64)
assert torch.equal(generate(model, idx, config, build_decoder=decoder), expected)
"""
    for threads in (1, 2):
        run_code(f"threads, file = {threads}, {str(tmp_path / f'{threads}.npy')!r}\n{CODE}{start}{code}")
    assert np.array_equal(np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy"))


def test_a_process_forked_from_one_that_used_the_loops_generates_the_same_text() -> None:
    code = """
import os
expected = generate(model, idx, config, build_decoder=decoder)
child = os.fork()
if not child:
    torch.set_num_threads(1)
    os._exit(not torch.equal(generate(model, idx, config, build_decoder=decoder), expected))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.equal(generate(model, idx, config, build_decoder=decoder), expected)
"""
    run_code(CODE + code)


@pytest.mark.parametrize(("rows", "kinds"), [(1, ["Functional", "Functional", "Numba"]), (3000, ["Numba", "Numba"])])
def test_numba_starts_once_the_texts_of_a_process_take_longer_than_that(rows: int, kinds: list[str]) -> None:
    code = f"""
from minigpt.generation.engine import prefill
window, _ = prefill(model, idx.expand({rows}, 1))
found = [type(build_decoder(window, 80, Limits(start_tokens=200))).__name__ for _ in {kinds}]
assert found == [kind + "Decoder" for kind in {kinds}], found
"""
    run_code(CODE + code)


def test_without_numba_pytorch_generates_the_same_text_and_warns_once() -> None:
    code = """
import sys, warnings
sys.modules["numba"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    texts = [generate(model, idx, config, build_decoder=decoder) for _ in range(2)]
[warning] = [str(each.message) for each in caught if "Numba" in str(each.message)]
assert warning.startswith("text is written with PyTorch, more slowly: Numba does not work here (import of numba halted")
assert torch.equal(texts[0], generate(model, idx, config, build_decoder=lambda window, tokens: None))
assert torch.equal(*texts)
"""
    run_code(CODE + code)


def test_a_compiler_that_is_switched_off_is_reported_and_pytorch_generates() -> None:
    code = """
import os, warnings
os.environ["NUMBA_DISABLE_JIT"] = "1"
import numba
numba.config.reload_config()  # as if Numba started with this variable
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    text = generate(model, idx, config, build_decoder=decoder)
[warning] = [str(each.message) for each in caught if "Numba" in str(each.message)]
assert "Numba does not work here (NUMBA_DISABLE_JIT switches its compiler off)" in warning
assert torch.equal(text, generate(model, idx, config, build_decoder=lambda window, tokens: None))
"""
    run_code(CODE + code)


def test_compiled_code_is_cached_by_the_version_of_the_loops() -> None:
    functions = (
        numba_decode.decode_tokens,
        numba_forward.predict,
        numba_sampling.sample_token,
        numba_ops.find_largest,
    )
    for function in functions:
        assert f"compiled-{numba_jit.hash_sources()}" in Path(function.stats.cache_path).parts


def test_loops_and_filters_choose_alike_where_logits_are_equal() -> None:
    rng = torch.Generator().manual_seed(0)
    for seed in range(300):
        logits = torch.randint(-3, 3, (1, 20), generator=rng).float() / 2  # many are equal
        config = SamplingConfig(
            top_p=(None, 0.7, 0.01)[seed % 3],
            top_k=(None, 8, 1, 99)[seed % 4],
            temperature=(0.9, 1e-300)[seed % 5 == 0],
        )
        uniform = torch.rand(1, generator=rng, dtype=torch.float64)
        sampling = numba_sampling.Sampling(config.temperature, config.top_k or 0, config.top_p or 1.0)
        token = numba_sampling.sample_token(logits[0].numpy(), sampling, float(uniform))
        assert token == int(choose_next_token(logits, config, uniform))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 250])
def test_the_largest_number_is_found_by_its_bits(size: int) -> None:
    for scale in (1, 1e-40, 1e30):
        for shift in (-3, 0, 3):
            x = scale * (torch.randn(size, generator=torch.Generator().manual_seed(size)) + shift)
            assert numba_ops.find_largest(x.numpy()) == float(x.max())
    infinite = torch.full((size,), -math.inf)
    assert numba_ops.find_largest(infinite.numpy()) == -math.inf


@pytest.mark.parametrize("activation", numba_ops.ACTIVATIONS)
def test_the_loops_activations_are_the_models(activation: str) -> None:
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([0.0, 1e-30, -1e-30, 1e4, -1e4])])
    ffwd = FeedForward(dataclasses.replace(SMALL, activation=activation))
    ffwd.up, ffwd.down, found = nn.Identity(), nn.Identity(), x.numpy().copy()
    numba_ops.activate(found, numba_ops.ACTIVATIONS.index(activation))
    torch.testing.assert_close(torch.from_numpy(found), ffwd(x.clone()), rtol=1e-6, atol=1e-6)


def test_without_numba_pytorch_writes_the_text_and_a_line_says_so(command: Callable, text_file: Path) -> None:
    shape = ["--block-size", "14", "--n-embd", "8", "--n-head", "1", "--n-layer", "1", "--batch-size", "2"]
    trained = command(
        "train", "--data", text_file, "--out", "long", "--max-iters", 2, "--snapshots", 0, "--json", *shape
    )
    assert trained.returncode == 0, trained.stderr
    arguments = ("sample", "long", "--seed", "1", "--max-new-tokens", "2100")
    without = command(*arguments, prepare=functools.partial(hide_module, "numba"))
    assert without.returncode == 0, without.stderr
    (line,) = [line for line in without.stderr.splitlines() if "Numba" in line]
    assert line.startswith("minigpt: text is written with PyTorch, more slowly: Numba does not work here (import of")
    with_numba = command(*arguments)
    assert "Numba" not in with_numba.stderr
    assert with_numba.stdout == without.stdout

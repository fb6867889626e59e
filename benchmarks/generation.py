"""Time generation in tokens per second: minigpt, the lecture's loop, transformers' `generate` and llama.cpp.

    python benchmarks/generation.py    # llama.cpp needs pip install 'mini-gpt[llama]'

All sides have the same random weights: a GPT-2 (GELU, biases, tied head), because llama.cpp reads that, and the
lecture's function beside it. Each side samples at a temperature of 1 from one token on, on the number of threads
that makes it fastest. The ratio is our speed over theirs: above 1 ours is faster.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from processor import describe_processor
from side_by_side import Side, choose_threads, time_in_turns

from minigpt.acceleration import accelerate
from minigpt.config import Config, ModelConfig, SamplingConfig
from minigpt.exchange.huggingface_export import save_gpt2
from minigpt.generation.engine import generate
from minigpt.model import TrainedModel
from minigpt.model.gpt import GPT
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.modern import Modern
from minigpt.model.quantization import Quantization, quantize_model

SMALL = ModelConfig(vocab_size=65, n_embd=64, n_head=4, n_layer=4, block_size=512)
MIDDLE = ModelConfig(vocab_size=65, n_embd=128, n_head=4, n_layer=4, block_size=512)
LARGE = ModelConfig(vocab_size=65, n_embd=384, n_head=6, n_layer=6, block_size=512)
ONE_TEXT = {"64 wide": (SMALL, 500), "128 wide": (MIDDLE, 500), "384 wide": (LARGE, 200)}  # and the number of tokens
ROWS = {  # rows, block_size, tokens
    "past block_size 32": (1, 32, 300),
    "64 rows within block_size 512": (64, 512, 200),
    "64 rows past block_size 32": (64, 32, 60),
}
MODERN = {"cpu-2min's network": "cpu-2min", "cpu-10min's network": "cpu-10min"}
GPT2: dict[str, Any] = {"activation": "gelu", "qkv_bias": True, "tied_head": True}
QUANTIZATIONS: dict[Quantization | None, str | None] = {None: None, "int8": "q8_0", "nf4": "q4_0"}  # ours, llama.cpp's
Work = Callable[[], object]


def make_model(config: ModelConfig) -> GPT:
    """Return a GPT with random weights and the kernels of an opened run."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    accelerate(model, Config())
    return model


def prepare_ours(model: TrainedModel, tokens: int, rows: int = 1) -> Work:
    """Return a call that generates with our engine."""
    idx, config = torch.zeros(rows, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=tokens, seed=0)
    return lambda: generate(model, idx, config)


def prepare_lecture(config: ModelConfig, tokens: int, rows: int = 1) -> Work:
    """Return a call of the lecture's `generate`."""
    model = GPTLanguageModel(dataclasses.replace(config, activation="relu", qkv_bias=False, tied_head=False)).eval()
    idx = torch.zeros(rows, 1, dtype=torch.int64)
    return lambda: model.generate(idx, tokens)


def prepare_transformers(model: GPT, tokens: int, rows: int = 1) -> Work:
    """Return a call of GPT2LMHeadModel.generate with its cache and the same weights."""
    from transformers import GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        save_gpt2(model, folder)
        theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    idx = torch.zeros(rows, 1, dtype=torch.int64)
    options = {"do_sample": True, "top_k": 0, "pad_token_id": 0, "max_new_tokens": tokens, "min_new_tokens": tokens}
    return lambda: theirs.generate(idx, attention_mask=torch.ones_like(idx), **options)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    cases = [*ONE_TEXT, *ROWS, *MODERN]
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, help="the cases to time [all]")
    arguments = parser.parse_args()
    print(f"{describe_processor()}\n")
    print("| case | side | threads | tokens/s | ours over theirs |\n| --- | --- | --- | --- | --- |")
    for name in arguments.cases:
        if name in ONE_TEXT:
            compare_one_text(name, *ONE_TEXT[name], arguments.rounds)
        elif name in MODERN:
            compare_modern(name, MODERN[name], arguments.rounds)
        else:
            compare_rows(name, *ROWS[name], arguments.rounds)


def compare_one_text(name: str, config: ModelConfig, tokens: int, rounds: int) -> None:
    """Compare all sides for one text, in float32 and quantized."""
    from llama_peer import prepare_llama_decode, prepare_llama_generate, write_model

    model = make_model(dataclasses.replace(config, **GPT2))
    ours = choose_threads(prepare_ours(model, tokens))
    sides = {
        "ours": ours,
        "ours, the lecture's function": choose_threads(prepare_ours(make_model(config), tokens)),
        "transformers' generate": choose_threads(prepare_transformers(model, tokens)),
    }
    if config is SMALL:  # it takes minutes for the others
        sides["the lecture's loop"] = choose_threads(prepare_lecture(config, tokens))
    for quantization, theirs in QUANTIZATIONS.items():
        if quantization is not None:
            quantized = quantize_model(make_model(model.config), quantization)
            sides = {"ours": choose_threads(prepare_ours(quantized, tokens)), "ours, float32": ours}
        with tempfile.TemporaryDirectory() as folder:
            path = write_model(model, Path(folder) / "model.gguf", theirs)
            sides["llama.cpp, its loop"] = prepare_llama_generate(path, tokens)
            sides["llama.cpp, bare llama_decode"] = prepare_llama_decode(path, tokens)
        numbers = "float32" if quantization is None else f"{quantization}, theirs {theirs}"
        print_comparison(f"{name}, {numbers}, within block_size 512", tokens, sides, 1, rounds)


def compare_rows(name: str, rows: int, block_size: int, tokens: int, rounds: int) -> None:
    """Compare the sides for several texts together, or past block_size."""
    config = dataclasses.replace(SMALL, block_size=block_size)
    model = make_model(dataclasses.replace(config, **GPT2))
    sides = {
        "ours": choose_threads(prepare_ours(model, tokens, rows)),
        "ours, the lecture's function": choose_threads(prepare_ours(make_model(config), tokens, rows)),
    }
    if block_size == 512:
        sides["transformers' generate"] = choose_threads(prepare_transformers(model, tokens, rows))
    else:
        sides["the lecture's loop"] = choose_threads(prepare_lecture(config, tokens, rows))
    print_comparison(f"64 wide, {name}", tokens, sides, rows, rounds)


def compare_modern(name: str, preset: str, rounds: int) -> None:
    """Compare the loops with PyTorch's cached path for the modern architecture, up to block_size and past it."""
    torch.manual_seed(0)
    config = dataclasses.replace(Config.from_preset(preset).model, vocab_size=65, dropout=0.0)
    model, block_size = Modern(config).eval(), config.block_size
    accelerate(model, Config())
    for title, prompt, count in (("within", 1, block_size - 1), ("past", block_size, 300)):
        idx, sampling = torch.zeros(1, prompt, dtype=torch.int64), SamplingConfig(max_new_tokens=count, seed=0)
        ours = partial(generate, model, idx, sampling)
        sides = {"ours": ours, "ours, by PyTorch": partial(ours, build_decoder=lambda *_: None)}
        chosen = {side: choose_threads(work) for side, work in sides.items()}
        print_comparison(f"{name}, {title} block_size {block_size}", count, chosen, 1, rounds)


def print_comparison(title: str, tokens: int, sides: dict[str, Side], rows: int, rounds: int) -> None:
    """Time the sides, each of which generates `tokens` tokens in a call, and print a row for each."""
    for name, timing in time_in_turns(sides, rounds, seconds=0.5).items():
        rate = rows * tokens / timing.seconds
        print(f"| {title} | {name} | {sides[name].threads} | {rate:,.0f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

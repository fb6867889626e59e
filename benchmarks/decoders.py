"""Time our ways to generate a text, by the size of the model: the rules of decoder selection come from this table.

    python benchmarks/decoders.py

Tokens per second of one text, in turns: the Numba loops, with each layer in one part or two, and PyTorch with a KV
cache on one thread and two. Up to block_size 512, and past smaller ones, where the window is read again.
"""

from collections.abc import Callable

import torch
from generation import make_model
from processor import describe_processor
from side_by_side import Side, time_in_turns

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation.engine import generate
from minigpt.kernels.decoder import Loops
from minigpt.kernels.numba_stream import NumbaDecoder
from minigpt.model.gpt import GPT

WITHIN = ((64, 4, 4), (128, 4, 4), (256, 4, 6), (384, 6, 6), (768, 12, 12))  # n_embd, n_head, n_layer
PAST = ((64, 4, 4, 32), (64, 4, 4, 128), (128, 4, 4, 64), (128, 4, 4, 256), (256, 4, 6, 64), (384, 6, 6, 256))


def prepare_numba(model: GPT, prompt: int, tokens: int, loops: Loops) -> Callable[[], object]:
    """Return a call that generates `tokens` tokens after a prompt of `prompt` tokens, by Numba loops."""
    idx, config = torch.zeros(1, prompt, dtype=torch.int64), SamplingConfig(max_new_tokens=tokens, seed=0)
    return lambda: generate(model, idx, config, build_decoder=lambda window, _: NumbaDecoder(window, loops))


def prepare_pytorch(model: GPT, prompt: int, tokens: int) -> Callable[[], object]:
    """Return a call that generates `tokens` tokens after a prompt of `prompt` tokens, by the model's own forward."""
    idx, config = torch.zeros(1, prompt, dtype=torch.int64), SamplingConfig(max_new_tokens=tokens, seed=0)
    return lambda: generate(model, idx, config, build_decoder=lambda *_: None)


def format_rates(sides: dict[str, Side], tokens: int) -> str:
    """Time the sides and return the tokens per second of each."""
    timings = time_in_turns(sides, rounds=5, seconds=0.4)
    return " | ".join(f"{tokens / timing.seconds:,.0f}" for timing in timings.values())


def main() -> None:
    """Print two tables."""
    head = "KV cache, one thread | KV cache, two threads"
    print(f"{describe_processor()}\n")
    print(f"| n_embd, blocks | Numba, one part | Numba, two parts | {head} |\n| --- | --- | --- | --- | --- |")
    for n_embd, n_head, n_layer in WITHIN:
        model = make_model(ModelConfig(vocab_size=65, block_size=512, n_embd=n_embd, n_head=n_head, n_layer=n_layer))
        tokens = 400 if n_embd < 300 else 100
        cached = prepare_pytorch(model, 1, tokens)
        whole, parts = (prepare_numba(model, 1, tokens, Loops(n, kind="row", window=False)) for n in (1, 2))
        sides = {"whole": Side(whole, 1), "parts": Side(parts, 2), "one": Side(cached, 1), "two": Side(cached, 2)}
        print(f"| {n_embd}, {n_layer} | {format_rates(sides, tokens)} |", flush=True)
    head = f"Numba, one thread | Numba, two threads | {head}"
    print(f"\n| n_embd, blocks, block_size | {head} |\n| --- | --- | --- | --- | --- |")
    for n_embd, n_head, n_layer, block_size in PAST:
        shape = ModelConfig(vocab_size=65, block_size=block_size, n_embd=n_embd, n_head=n_head, n_layer=n_layer)
        model, tokens = make_model(shape), 300 if n_embd * block_size < 10_000 else 30
        cached = prepare_pytorch(model, block_size, tokens)
        loops = prepare_numba(model, block_size, tokens, Loops(1, kind="row", window=True))
        sides = {"1": Side(loops, 1), "2": Side(loops, 2), "one": Side(cached, 1), "two": Side(cached, 2)}
        print(f"| {n_embd}, {n_layer}, {block_size} | {format_rates(sides, tokens)} |", flush=True)


if __name__ == "__main__":
    main()

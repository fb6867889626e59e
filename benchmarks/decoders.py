"""Time our ways to generate a text, by the size of the model: the rules of decoder selection come from this table.

    python benchmarks/decoders.py

Tokens per second of one text, in turns: the Numba loops, with each layer in one part or two, and PyTorch with a KV
cache on one thread and two. Up to block_size 512, and past smaller ones, where the window is read again.
"""

from collections.abc import Callable

import torch
from generation import make_model
from side_by_side import Side, time_in_turns

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation import backend_selection as path
from minigpt.generation import engine
from minigpt.model.gpt import GPT

WITHIN = ((64, 4, 4), (128, 4, 4), (256, 4, 6), (384, 6, 6), (768, 12, 12))  # n_embd, n_head, n_layer
PAST = ((64, 4, 4, 32), (64, 4, 4, 128), (128, 4, 4, 64), (128, 4, 4, 256), (256, 4, 6, 64), (384, 6, 6, 256))


def writing(model: GPT, start: int, tokens: int, loops: path.Loops | None) -> Callable[[], object]:
    """Write so many tokens after so many others by one of the two ways."""
    idx, config = torch.zeros(1, start, dtype=torch.int64), SamplingConfig(max_new_tokens=tokens, seed=0)
    rule = engine.loops_for

    def work() -> None:
        engine.loops_for = lambda *_: loops
        try:
            engine.generate(model, idx, config)
        finally:
            engine.loops_for = rule

    return work


def compare(sides: dict[str, Side], tokens: int) -> str:
    """Tokens a second of each side."""
    return " | ".join(
        f"{tokens / timing.seconds:,.0f}" for timing in time_in_turns(sides, rounds=5, seconds=0.4).values()
    )


def main() -> None:
    """Print two tables."""
    head = "cached, one thread | cached, two threads"
    print(f"| n_embd, blocks | loops, whole | loops, two parts | {head} |\n| --- | --- | --- | --- | --- |")
    for n_embd, n_head, n_layer in WITHIN:
        model = make_model(ModelConfig(vocab_size=65, block_size=512, n_embd=n_embd, n_head=n_head, n_layer=n_layer))
        tokens = 400 if n_embd < 300 else 100
        cached = writing(model, 1, tokens, None)
        whole, parts = (writing(model, 1, tokens, path.Loops(n, eight_bits=False, window=False)) for n in (1, 2))
        sides = {"whole": Side(whole, 1), "parts": Side(parts, 2), "one": Side(cached, 1), "two": Side(cached, 2)}
        print(f"| {n_embd}, {n_layer} | {compare(sides, tokens)} |", flush=True)
    head = f"loops, one thread | loops, two | {head}"
    print(f"\n| n_embd, blocks, block_size | {head} |\n| --- | --- | --- | --- | --- |")
    for n_embd, n_head, n_layer, block_size in PAST:
        shape = ModelConfig(vocab_size=65, block_size=block_size, n_embd=n_embd, n_head=n_head, n_layer=n_layer)
        model, tokens = make_model(shape), 300 if n_embd * block_size < 10_000 else 30
        cached = writing(model, block_size, tokens, None)
        loops = writing(model, block_size, tokens, path.Loops(1, eight_bits=False, window=True))
        sides = {"1": Side(loops, 1), "2": Side(loops, 2), "one": Side(cached, 1), "two": Side(cached, 2)}
        print(f"| {n_embd}, {n_layer}, {block_size} | {compare(sides, tokens)} |", flush=True)


if __name__ == "__main__":
    main()

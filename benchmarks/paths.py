"""The two ways in which our own engine writes, by the size of the model: what its fixed rule was made from.

    python benchmarks/paths.py

Tokens a second at batch 1 and block_size 512, in turn: the compiled loops on one thread, the cached way through
PyTorch on one and on two.
"""

from collections.abc import Callable

import torch
from generation import model_of
from side_by_side import Side, alternate

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.model.gpt import GPT
from minigpt.sampling import engine

SIZES = ((64, 4, 4), (128, 4, 4), (256, 4, 6), (384, 6, 6), (768, 12, 12))  # n_embd, n_head, n_layer


def writing(model: GPT, tokens: int, loops: bool) -> Callable[[], object]:
    """Write so many tokens by one of the two ways."""
    idx, config = torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=tokens, seed=0)
    rule = engine.suits_loops

    def work() -> None:
        engine.suits_loops = lambda *_: loops
        try:
            engine.generate(model, idx, config)
        finally:
            engine.suits_loops = rule

    return work


def main() -> None:
    """Print a table."""
    print("| n_embd, blocks | compiled loops | cached, one thread | cached, two threads |\n| --- | --- | --- | --- |")
    for n_embd, n_head, n_layer in SIZES:
        model = model_of(ModelConfig(vocab_size=65, block_size=512, n_embd=n_embd, n_head=n_head, n_layer=n_layer))
        tokens = 400 if n_embd < 300 else 100
        loops, cached = (writing(model, tokens, way) for way in (True, False))
        sides = {"loops": Side(loops, 1), "one": Side(cached, 1), "two": Side(cached, 2)}
        rates = [f"{tokens / timing.seconds:,.0f}" for timing in alternate(sides, rounds=5, seconds=0.4).values()]
        print(f"| {n_embd}, {n_layer} | {' | '.join(rates)} |", flush=True)


if __name__ == "__main__":
    main()

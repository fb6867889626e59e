"""Tokens a second, ours against the lecture's loop, transformers' `generate` and llama.cpp, in one run, in turn.

    python benchmarks/generation.py            # llama.cpp needs pip install 'mini-gpt[llama]', a build of minutes

Every side has the same random weights: a GPT-2 (GELU, biases, tied head), since that is what llama.cpp reads, and
the lecture's own function beside it. Each samples at a temperature of 1 from one token on, on the number of threads
that it is fastest with. The ratio is ours over theirs in tokens a second: above 1 ours is faster.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from llama_peer import llama_decode, llama_generate, write_gguf
from side_by_side import Side, alternate, faster_threads

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.exchange.huggingface import save_gpt2
from minigpt.generation.engine import generate
from minigpt.model.gpt import GPT
from minigpt.model.int8 import to_8_bits
from minigpt.model.lecture import GPTLanguageModel

SMALL = ModelConfig(vocab_size=65, n_embd=64, n_head=4, n_layer=4, block_size=512)
MIDDLE = ModelConfig(vocab_size=65, n_embd=128, n_head=4, n_layer=4, block_size=512)
LARGE = ModelConfig(vocab_size=65, n_embd=384, n_head=6, n_layer=6, block_size=512)
GPT2 = {"activation": "gelu", "qkv_bias": True, "tied_head": True}
Work = Callable[[], object]


def model_of(config: ModelConfig) -> GPT:
    """A GPT with random weights."""
    torch.manual_seed(0)
    return GPT(config).eval()


def ours(model: GPT, tokens: int, rows: int = 1) -> Work:
    """Our engine, by the path that it takes for this model."""
    idx, config = torch.zeros(rows, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=tokens, seed=0)
    return lambda: generate(model, idx, config)


def lecture(config: ModelConfig, tokens: int, rows: int = 1) -> Work:
    """The lecture's loop: its model on the last block_size tokens, softmax, multinomial, cat."""
    model = GPTLanguageModel(dataclasses.replace(config, activation="relu", qkv_bias=False, tied_head=False)).eval()

    @torch.no_grad()
    def work() -> None:
        idx = torch.zeros(rows, 1, dtype=torch.int64)
        for _ in range(tokens):
            logits, _ = model(idx[:, -config.block_size :])
            idx = torch.cat([idx, torch.multinomial(logits[:, -1].softmax(dim=-1), 1)], dim=1)

    return work


def transformers(model: GPT, tokens: int, rows: int = 1) -> Work:
    """GPT2LMHeadModel.generate with its cache, the same weights."""
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
    arguments = parser.parse_args()
    print("| case | side | threads | tokens/s | ours is so many times as fast |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, config, tokens in (("64 wide", SMALL, 500), ("128 wide", MIDDLE, 500), ("384 wide", LARGE, 200)):
            model = model_of(dataclasses.replace(config, **GPT2))
            sides = {
                "ours": faster_threads(ours(model, tokens)),
                "ours, the lecture's function": faster_threads(ours(model_of(config), tokens)),
                "transformers' generate": faster_threads(transformers(model, tokens)),
                "the lecture's loop": faster_threads(lecture(config, tokens)),
            }
            for bits in (32, 8):
                path = write_gguf(model, Path(folder) / f"{config.n_embd}-{bits}.gguf", bits == 8)
                if bits == 8:
                    sides = {"ours": faster_threads(ours(to_8_bits(model), tokens))}
                sides["llama.cpp, its loop"] = llama_generate(path, tokens)
                sides["llama.cpp, bare llama_decode"] = llama_decode(path, tokens)
                compare(f"{name}, {bits} bits, within block_size 512", tokens, sides, 1, arguments.rounds)
        for name, rows, block_size, tokens in (
            ("64 wide, past block_size 32", 1, 32, 300),
            ("64 wide, 64 rows within block_size 512", 64, 512, 200),
            ("64 wide, 64 rows past block_size 32", 64, 32, 60),
        ):
            config = dataclasses.replace(SMALL, block_size=block_size)
            sides = {
                "ours": faster_threads(ours(model_of(config), tokens, rows)),
                "the lecture's loop": faster_threads(lecture(config, tokens, rows)),
            }
            if block_size == 512:
                gpt2 = model_of(dataclasses.replace(config, **GPT2))
                sides["transformers' generate"] = faster_threads(transformers(gpt2, tokens, rows))
            compare(name, tokens, sides, rows, arguments.rounds)


def compare(title: str, tokens: int, sides: dict[str, Side], rows: int, rounds: int) -> None:
    """Time the sides, each writing so many tokens a call, and print a row for each."""
    for name, timing in alternate(sides, rounds, seconds=0.5).items():
        rate = rows * tokens / timing.seconds
        print(f"| {title} | {name} | {sides[name].threads} | {rate:,.0f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

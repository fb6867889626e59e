"""Time a training step of minigpt, of the lecture, of nanoGPT and of transformers, and the matrix products alone.

    python benchmarks/training_step.py --data input.txt

A step is batch, loss, backward and optimizer. The sides run in turns, each on the number of threads that makes it
fastest, or on --threads. A ratio is a side's time over ours in the same round: the median, and the range in
parentheses.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import torch
from peers import (
    LECTURE_SHAPE,
    Shape,
    Step,
    make_lecture_step,
    make_matrix_products,
    make_nanogpt_step,
    make_transformers_step,
)
from processor import describe_processor
from side_by_side import Side, choose_threads, time_in_turns
from torch import Tensor

from minigpt.data.corpus import find_corpus
from minigpt.tokenizers.char import CharTokenizer

SHAPES = [LECTURE_SHAPE, Shape(12, 64, 128, 4, 4), Shape(8, 256, 384, 6, 6)]


def make_our_step(shape: Shape, ids: Tensor, **settings: Any) -> Step:
    """Make a step of `minigpt train` with these settings."""
    from steps import make_step

    from minigpt.config import Config
    from minigpt.data.dataset import Dataset
    from minigpt.model import build

    config = Config().override(
        vocab_size=shape.V,
        block_size=shape.T,
        n_embd=shape.C,
        n_head=shape.H,
        n_layer=shape.L,
        batch_size=shape.B,
        **settings,
    )
    dataset = Dataset(ids, config)
    return make_step(build(config.model).train(), config, dataset)


def main() -> None:
    """Print a table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="the number of threads of every side")
    arguments = parser.parse_args()
    text = find_corpus(arguments.data).text
    tokenizer = CharTokenizer.from_text(text)
    ids = torch.tensor(tokenizer.encode(text))
    print(f"{describe_processor()}\n")
    print("| (B, T, C, H, L) | step | threads | ms | time over ours |\n| --- | --- | --- | --- | --- |")
    for shape in SHAPES:
        steps: dict[str, Callable[..., Step]] = {
            "ours": make_our_step,
            "ours, by PyTorch": functools.partial(make_our_step, compiled_loops="off"),
            "the lecture's": make_lecture_step,
            "nanoGPT's": make_nanogpt_step,
            "transformers' GPT-2": make_transformers_step,
        }
        works = {name: make(shape, ids) for name, make in steps.items()}
        works["matrix products alone"] = make_matrix_products(shape)
        threads = arguments.threads
        sides = {name: Side(work, threads) if threads else choose_threads(work) for name, work in works.items()}
        for name, timing in time_in_turns(sides, arguments.rounds).items():
            print(f"| {shape} | {name} | {sides[name].threads} | {timing.seconds * 1e3:.2f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

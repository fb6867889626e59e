"""A training step against the peers' and against the floor of its matrix products, in one run, in turn.

    python benchmarks/training_step.py --data input.txt

Batch, loss, backward and optimizer are in each step. Every side runs on the number of threads that it is
fastest with. The ratios are to ours in the same round: their median, and the lowest and the highest.
"""

import argparse
from typing import Any

import torch
from peers import SEED_SIZE, Shape, Step, floor, lecture, nano, transformers
from side_by_side import alternate, faster_threads
from torch import Tensor

from minigpt.data.corpus import find_corpus
from minigpt.tokenizers.char import CharTokenizer

SHAPES = [SEED_SIZE, Shape(12, 64, 128, 4, 4), Shape(8, 256, 384, 6, 6)]


def ours(shape: Shape, ids: Tensor, **settings: Any) -> Step:
    """A step of `minigpt train` with those settings."""
    from minigpt.config import Config
    from minigpt.data.dataset import Dataset
    from minigpt.model import build
    from minigpt.training.gradients import Gradients
    from minigpt.training.optimizer import Optimizer

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
    gradients = Gradients(build(config.model).train(), config)
    optimizer = Optimizer(gradients.parameters, config.training, gradients.scaler)

    def step() -> None:
        gradients.add(*dataset.get_batch("train"))
        optimizer.step(0)

    return step


def main() -> None:
    """Print a table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text; without it as for minigpt train")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    text = find_corpus(arguments.data).text
    tokenizer = CharTokenizer.from_text(text)
    ids = torch.tensor(tokenizer.encode(text))
    print("| (B, T, C, H, L) | step | threads | ms | time over ours |\n| --- | --- | --- | --- | --- |")
    for shape in SHAPES:
        steps = {"ours": ours, "the lecture's": lecture, "nanoGPT's": nano, "transformers' GPT-2": transformers}
        sides = {name: faster_threads(make(shape, ids)) for name, make in steps.items()}
        sides["matrix products alone"] = faster_threads(floor(shape))
        for name, timing in alternate(sides, arguments.rounds).items():
            print(f"| {shape} | {name} | {sides[name].threads} | {timing.seconds * 1e3:.2f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

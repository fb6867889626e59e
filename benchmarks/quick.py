"""Print six headline ratios of this machine, within five minutes.

    python benchmarks/quick.py --data input.txt

Each is the median, over several rounds, of their time over ours: above 1, minigpt is faster. The peers are the
lecture's code, nanoGPT's step and transformers. training_step.py and generation.py have the full tables.
"""

import argparse
import dataclasses
from collections.abc import Callable

import torch
from generation import GPT2, LARGE, SMALL, make_model, prepare_lecture, prepare_ours, prepare_transformers
from peers import LECTURE_SHAPE, make_lecture_step, make_nanogpt_step
from processor import describe_processor
from side_by_side import choose_threads, time_in_turns
from training_step import make_our_step

from minigpt.data.corpus import find_corpus
from minigpt.model.quantization import quantize_model
from minigpt.tokenizers.char import CharTokenizer

Work = Callable[[], object]
TOKENS = 150


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    text = find_corpus(parser.parse_args().data).text
    ids = torch.tensor(CharTokenizer.from_text(text).encode(text))
    print(f"{describe_processor()}\n")
    print("| what | ours | theirs | their time / ours |\n| --- | --- | --- | --- |")
    step = make_our_step(LECTURE_SHAPE, ids)
    compare("training step, the lecture's", step, make_lecture_step(LECTURE_SHAPE, ids))
    compare("training step, nanoGPT's", step, make_nanogpt_step(LECTURE_SHAPE, ids))
    model = make_model(dataclasses.replace(SMALL, **GPT2))
    ours = prepare_ours(model, TOKENS)
    compare(f"{TOKENS} tokens, transformers' generate", ours, prepare_transformers(model, TOKENS))
    short = dataclasses.replace(SMALL, block_size=32)
    ours = prepare_ours(make_model(short), TOKENS)
    compare(f"{TOKENS} tokens past block_size, the lecture's", ours, prepare_lecture(short, TOKENS))
    rows = prepare_ours(model, 50, rows=64), prepare_transformers(model, 50, rows=64)
    compare("64 texts of 50 tokens, transformers' generate", *rows)
    large = make_model(dataclasses.replace(LARGE, **GPT2))
    quantized = quantize_model(make_model(large.config), "nf4")
    compare(
        "60 tokens of 10.9 million weights in 4 bits, in float32",
        prepare_ours(quantized, 100),
        prepare_ours(large, 100),
    )


def compare(what: str, ours: Work, theirs: Work) -> None:
    """Time both sides in turns, each on the number of threads that makes it fastest, and print a row."""
    sides = {"ours": choose_threads(ours), "theirs": choose_threads(theirs)}
    timings = time_in_turns(sides, rounds=5, seconds=0.3)
    seconds = [f"{timing.seconds * 1e3:,.1f} ms" for timing in timings.values()]
    print(f"| {what} | {' | '.join(seconds)} | {timings['theirs']} |", flush=True)


if __name__ == "__main__":
    main()

"""Time the training of a byte-level BPE tokenizer and encoding, against the libraries.

    python benchmarks/tokenizing.py --data input.txt

The merges of both BPE trainers and the ids of all encoders must be equal. The encoders get a text of 7 MB, made of
copies with different words, in one piece. Each library uses as many threads as it does by itself.
"""

import argparse
import functools
import json
import os
from collections.abc import Callable
from itertools import chain
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import gigatoken
import tiktoken
import tokenizers
from large_text import make_documents
from side_by_side import Side, time_in_turns

from minigpt.data.corpus import find_corpus
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import PATTERNS, token_to_text
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

SIZES = (512, 1024, 4096)
ROUNDS = 5
COPIES = 6


def train_huggingface(text: str, size: int) -> tokenizers.Tokenizer:
    """Train a tokenizer with Hugging Face's trainer."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    text = find_corpus(parser.parse_args().data).text
    print("| tokens | trainer | seconds | time over ours |\n| --- | --- | --- | --- |")
    for size in SIZES:
        ours, other = BPETokenizer.train(text, size), train_huggingface(text, size)
        merges = [list(merge) for merge in json.loads(other.to_str())["model"]["merges"]]
        if [[token_to_text(a), token_to_text(b)] for a, b in ours.merges] != merges:
            raise SystemExit(f"the merges differ at {size} tokens")
        sides = {
            "ours": Side(functools.partial(BPETokenizer.train, text, size)),
            "tokenizers": Side(functools.partial(train_huggingface, text, size)),
            "SentencePiece's unigram": Side(functools.partial(SentencePieceTokenizer.train, text, size)),
        }
        for name, timing in time_in_turns(sides, rounds=ROUNDS, seconds=0.1).items():
            print(f"| {size} | {name} | {timing.seconds:.2f} | {timing} |", flush=True)
    compare_encoders(text)


def compare_encoders(text: str) -> None:
    """Print the speed of encoding."""
    large = "\n".join(make_documents(text, COPIES))
    ours, other = BPETokenizer.train(text, 1024), train_huggingface(text, 1024)
    by_tiktoken = BPETokenizer(ours.merges)
    by_tiktoken.libraries = ("tiktoken",)
    ranks = {token: i for i, token in ours.vocab.items()}
    bare = tiktoken.Encoding("bare", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    fast = gigatoken.Tokenizer.from_json(ours.to_bytes())
    ids = ours.encode_in_python(large)
    sides: dict[str, Callable[[], Any]] = {
        "ours, by gigatoken, to an array": lambda: ours.encode_to_arrays([large])[0],
        "ours, by gigatoken, to a list": lambda: ours.encode(large),
        "ours, by tiktoken, to an array": lambda: by_tiktoken.encode_to_arrays([large])[0],
        "ours, in Python": lambda: ours.encode_in_python(large),
        "gigatoken": lambda: fast.encode(large),
        "tiktoken": lambda: bare.encode_ordinary(large),
        "tokenizers": lambda: other.encode(large).ids,
        "tokenizers, line by line in parallel": lambda: list(
            chain.from_iterable(line.ids for line in other.encode_batch(large.splitlines(keepends=True)))
        ),
    }
    for name, encode in sides.items():
        if list(encode()) != ids and "line by line" not in name:
            raise SystemExit(f"the ids differ: {name}")
    print("\n| encoder | MB/s | time over ours |\n| --- | --- | --- |")
    timings = time_in_turns({name: Side(encode) for name, encode in sides.items()}, rounds=ROUNDS, seconds=0.1)
    for name, timing in timings.items():
        print(f"| {name} | {len(large.encode()) / 1e6 / timing.seconds:.1f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

"""Learning a byte-level BPE vocabulary and encoding with it: ours against tokenizers and tiktoken, in one run.

    python benchmarks/tokenizing.py --data input.txt

The merges of both trainers, and the ids of all encoders, are compared on the way, and must be the same. Encoding is of
the text four times over, so that it is large enough for ours to go through tiktoken.
"""

import argparse
import functools
import json
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import tiktoken
import tokenizers
from side_by_side import Side, alternate

from minigpt.data.corpus import find_corpus
from minigpt.tokenizers import tiktoken_adapter
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import PATTERNS, token_to_text
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

SIZES = (512, 1024, 4096)
ROUNDS = 5


def theirs(text: str, size: int) -> tokenizers.Tokenizer:
    """A tokenizer that Hugging Face's trainer learned."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text; without it as for minigpt train")
    text = find_corpus(parser.parse_args().data).text
    print("| tokens | trainer | seconds | time over ours |\n| --- | --- | --- | --- |")
    for size in SIZES:
        ours, other = BPETokenizer.train(text, size), theirs(text, size)
        merges = [list(merge) for merge in json.loads(other.to_str())["model"]["merges"]]
        if [[token_to_text(a), token_to_text(b)] for a, b in ours.merges] != merges:
            raise SystemExit(f"the merges differ at {size} tokens")
        sides = {
            "ours": Side(functools.partial(BPETokenizer.train, text, size)),
            "tokenizers": Side(functools.partial(theirs, text, size)),
            "SentencePiece's unigram": Side(functools.partial(SentencePieceTokenizer.train, text, size)),
        }
        for name, timing in alternate(sides, rounds=ROUNDS, seconds=0.1).items():
            print(f"| {size} | {name} | {timing.seconds:.2f} | {timing} |", flush=True)
    large = text * 4
    ours, other = BPETokenizer.train(text, 1024), theirs(text, 1024)
    ranks = {token: i for i, token in ours.vocab.items()}
    bare = tiktoken.Encoding("bare", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})

    def by_ourselves(text: str) -> list[int]:
        return ours.encode_in_python(text)

    ids = by_ourselves(text)
    for name, found in (("tiktoken", ours.encode(text)), ("tokenizers", other.encode(text).ids)):
        if found != ids:
            raise SystemExit(f"the ids differ from those of {name}")
    assert len(large) >= tiktoken_adapter.MIN_CHARACTERS
    sides = {
        "ours": Side(lambda: ours.encode(large)),
        "ours, in Python alone": Side(lambda: by_ourselves(large)),
        "tiktoken": Side(lambda: bare.encode_ordinary(large)),
        "tokenizers": Side(lambda: other.encode(large)),
        "tokenizers, line by line in parallel": Side(lambda: other.encode_batch(large.splitlines(keepends=True))),
    }
    print("\n| encoder | MB/s | time over ours |\n| --- | --- | --- |")
    for name, timing in alternate(sides, rounds=ROUNDS, seconds=0.1).items():
        print(f"| {name} | {len(large.encode()) / 1e6 / timing.seconds:.2f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

"""Time the training of a byte-level BPE tokenizer and encoding, against tokenizers, tiktoken and SentencePiece.

    python benchmarks/tokenizing.py --data input.txt

The merges of both BPE trainers and the ids of all encoders must be equal. The text is encoded four times in a row,
which makes it large enough for minigpt to use tiktoken.
"""

import argparse
import functools
import json
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import tiktoken
import tokenizers
from side_by_side import Side, time_in_turns

from minigpt.data.corpus import find_corpus
from minigpt.tokenizers import tiktoken_adapter
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import PATTERNS, token_to_text
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

SIZES = (512, 1024, 4096)
ROUNDS = 5


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
    large = text * 4
    ours, other = BPETokenizer.train(text, 1024), train_huggingface(text, 1024)
    ranks = {token: i for i, token in ours.vocab.items()}
    bare = tiktoken.Encoding("bare", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})

    def encode_in_python(text: str) -> list[int]:
        return ours.encode_in_python(text)

    ids = encode_in_python(text)
    for name, found in (("tiktoken", ours.encode(text)), ("tokenizers", other.encode(text).ids)):
        if found != ids:
            raise SystemExit(f"the ids differ from those of {name}")
    assert len(large) >= tiktoken_adapter.MIN_CHARACTERS
    sides = {
        "ours": Side(lambda: ours.encode(large)),
        "ours, in Python alone": Side(lambda: encode_in_python(large)),
        "tiktoken": Side(lambda: bare.encode_ordinary(large)),
        "tokenizers": Side(lambda: other.encode(large)),
        "tokenizers, line by line in parallel": Side(lambda: other.encode_batch(large.splitlines(keepends=True))),
    }
    print("\n| encoder | MB/s | time over ours |\n| --- | --- | --- |")
    for name, timing in time_in_turns(sides, rounds=ROUNDS, seconds=0.1).items():
        print(f"| {name} | {len(large.encode()) / 1e6 / timing.seconds:.2f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()

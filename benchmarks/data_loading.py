"""Measure batches from files larger than memory, and the speed of `minigpt data prepare`.

    python benchmarks/data_loading.py --data input.txt

Three tables. Batches from mapped files against batches from memory. A training on 2 GB of random tokens, in a
process that may use 1 GB, beside one on 2 MB. The speed from text to shards, against libraries that only encode.
The limit of 1 GB is a control group, which on Linux needs root; without it the process runs unlimited. Its
anonymous memory is what it holds besides pages of files, which the operating system drops when it needs room.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gigatoken
import numpy as np
import tiktoken
import tokenizers
import torch
from large_text import make_documents
from side_by_side import Side, time_in_turns

from minigpt.config import Config
from minigpt.data.corpus import find_corpus
from minigpt.data.dataset import Dataset
from minigpt.data.prepare import PrepareSettings, prepare_corpus
from minigpt.data.prepared_data import PreparedData
from minigpt.data.shard_writer import create_index, write_shards
from minigpt.data.shards import Part, Split
from minigpt.tokenizers.base import END_OF_TEXT
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import PATTERNS
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.train import train

SHARDS, TOKENS = 32, 2**25  # tokens of two bytes in each shard: 2 GB
LIMIT = 2**30
GROUPS = (  # control groups, versions 1 and 2: folder, file of the limit, file of the peak
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
)
COPIES = 64  # copies of the text for the encoders


class SilentProgress:
    """A progress display that shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, title: str, total: int) -> None:
        """Nothing."""

    def update(self, position: int) -> None:
        """Nothing."""


def write_random_shards(folder: Path, shards: int, tokens: int) -> None:
    """Write prepared data of random ids: training shards and one validation shard; none of it stays in memory."""
    folder.mkdir()
    tokenizer = CharTokenizer.from_text("".join(map(chr, range(32, 97))))
    tokenizer = CharTokenizer(tokenizer.stoi, [END_OF_TEXT])
    index = create_index(folder, tokenizer, dataclasses.asdict(PrepareSettings()))
    rng = np.random.default_rng(0)
    for number in range(shards):
        ids = rng.integers(tokenizer.vocab_size, size=tokens, dtype=np.uint16).tobytes()
        encoded: dict[Split, bytes] = {"train": ids, "val": ids[: 2 * 10**6] if number == 0 else b""}
        files = write_shards(folder, number, iter([encoded]), index.dtype)
        part = Part(1, tokens, tokens, "", files["train"], files["val"])
        index = dataclasses.replace(index, parts=(*index.parts, part))
    dataclasses.replace(index, finished=True).write(folder)
    if hasattr(os, "posix_fadvise"):
        for path in folder.glob("*.bin"):  # a page in memory would not count for the control group
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def read_memory(name: str) -> float:
    """Return a figure of this process's memory in MB (Linux): "RssAnon", "VmHWM" or others."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{name}:")[1].split()[0]) * 1024 / 1e6


def measure_data(folder: Path) -> None:
    """Open the data, draw batches, train, and print the figures."""
    start = time.perf_counter()
    data = PreparedData(folder)
    figures: dict[str, float] = {"opened_seconds": time.perf_counter() - start, "tokens": len(data.train)}
    for order in ("random", "epochs"):
        dataset = Dataset(data, Config().override(order=order, vocab_size=data.tokenizer.vocab_size))
        dataset.get_batch("train")
        start, batches = time.perf_counter(), 20_000
        for _ in range(batches):
            dataset.get_batch("train")
        figures[f"microseconds_{order}"] = (time.perf_counter() - start) / batches * 1e6
    run = train(Config().override(max_iters=200, device="cpu"), folder, folder.parent / "run", overwrite=True)
    figures["step"] = run.info.training_seconds / 200 * 1e3
    figures |= {name: read_memory(name) for name in ("RssAnon", "VmHWM")}
    print(json.dumps(figures))


@contextmanager
def limit_memory() -> Iterator[tuple[Path, str] | None]:
    """Yield a control group of 1 GB and the name of its file with the peak; None where that needs root."""
    for root, limit, peak in GROUPS:
        group = root / f"minigpt-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(LIMIT))
        except OSError:
            continue
        try:
            yield group, peak
        finally:
            group.rmdir()
        return
    yield None


def measure_in_process(folder: Path) -> dict[str, float]:
    """Run `measure_data` in a new process, in a control group of 1 GB if possible, and return the figures."""
    with limit_memory() as group:
        enter = f"echo $$ > {group[0]}/cgroup.procs; " if group else ""
        child = f'{enter}exec "{sys.executable}" "{__file__}" --child "{folder}"'
        done = subprocess.run(["sh", "-c", child], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the process ended with {done.returncode}: {done.stderr[-2000:]}")
        figures = json.loads(done.stdout.splitlines()[-1])
        if group:
            figures["group"] = int((group[0] / group[1]).read_text()) / 1e6
        return figures


def compare_large_and_small() -> None:
    """Print the figures for 2 MB and for 2 GB of tokens."""
    head = ["tokens", "open and check, s", "a batch at random, µs", "in epochs, µs", "a step, ms"]
    head += ["anonymous memory, MB", "with pages of files, MB", "the group's peak, MB, of 1,074"]
    print(f"\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    with tempfile.TemporaryDirectory() as below:
        for shards, tokens in ((1, 10**6), (SHARDS, TOKENS)):
            folder = Path(below) / f"{shards}"
            write_random_shards(folder, shards, tokens)
            f = measure_in_process(folder)
            row = [f"{f['tokens']:,.0f}", f"{f['opened_seconds']:.1f}", f"{f['microseconds_random']:.1f}"]
            row += [f"{f['microseconds_epochs']:.1f}", f"{f['step']:.1f}", f"{f['RssAnon']:,.0f}"]
            row += [f"{f['VmHWM']:,.0f}", f"{f['group']:,.0f}" if "group" in f else "no control group"]
            print(f"| {' | '.join(row)} |", flush=True)


def compare_mapped_and_memory(text: str) -> None:
    """Print the time of a batch of the lecture preset."""
    with tempfile.TemporaryDirectory() as below:
        file = Path(below) / "text.txt"
        file.write_text(text)
        prepare_corpus([file], Path(below) / "data", PrepareSettings(), SilentProgress())
        data = PreparedData(Path(below) / "data")
        config = Config()
        ids = torch.as_tensor(np.concatenate([data.train[:], data.val[:]]))
        sides = {name: Dataset(source, config) for name, source in (("in memory", ids), ("mapped", data))}
        work = {name: Side(functools.partial(dataset.get_batch, "train")) for name, dataset in sides.items()}
        print("| a batch of 16 windows of 32 | µs | time over in memory |\n| --- | --- | --- |")
        for name, timing in time_in_turns(work).items():
            print(f"| {name} | {timing.seconds * 1e6:.1f} | {timing} |", flush=True)


def compare_encoders(text: str) -> None:
    """Print the speed from text to shards, against libraries that only encode."""
    documents = make_documents(text, COPIES)
    tokenizer = BPETokenizer.train(text, 4096, [END_OF_TEXT])
    ranks = {token: i for i, token in tokenizer.vocab.items() if token != END_OF_TEXT.encode()}
    bare = tiktoken.Encoding("bare", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    with tempfile.TemporaryDirectory() as below:
        folder = Path(below)
        tokenizer.save(folder / "tokenizer.json")
        other = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        gigatoken_encoder = gigatoken.Tokenizer(folder / "tokenizer.json")
        file = folder / "documents.jsonl"
        file.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
        count = iter(range(10**6))
        settings = PrepareSettings(tokenizer=str(folder / "tokenizer.json"))
        sides = {
            "minigpt data prepare: read, split, encode, hash, write": Side(
                lambda: prepare_corpus([file], folder / f"{next(count)}", settings, SilentProgress())
            ),
            "gigatoken, the documents in memory, 2 threads": Side(lambda: gigatoken_encoder.encode_batch(documents)),
            "tiktoken, the documents in memory, 2 threads": Side(
                lambda: bare.encode_ordinary_batch(documents, num_threads=2)
            ),
            "tokenizers, the documents in memory, 2 threads": Side(lambda: other.encode_batch_fast(documents)),
        }
        size = sum(len(document.encode()) for document in documents)
        print(f"\n| {size / 1e6:,.0f} MB in {COPIES} documents | MB/s | time over ours |\n| --- | --- | --- |")
        for name, timing in time_in_turns(sides, rounds=3, seconds=0.1).items():
            print(f"| {name} | {size / 1e6 / timing.seconds:.1f} | {timing} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure_data(Path(arguments.child))
        return
    text = find_corpus(arguments.data).text
    compare_mapped_and_memory(text)
    compare_large_and_small()
    compare_encoders(text)


if __name__ == "__main__":
    main()

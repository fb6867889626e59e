"""Compare the losses of models that count with those of compressors, on the last tenth of a text.

    pip install pyppmd zstandard                # for the rows of PPMd and zstd
    apt-get install zpaq                        # for the rows of zpaq
    python benchmarks/compressors.py --data input.txt

The loss of a compressor is the size of the whole text minus the size of its first nine tenths, in nats per character of
the last tenth. A compressor learns from each character after it has coded it, so its rival is the adaptive row of the
context-mixing model. The static rows learn nothing from the last tenth.

With `--tune`, the text is the training text alone, so its last tenth is no validation text. With `--tune --ablation`,
each row leaves out some experts. With `--kernel`, the plain functions of the context-mixing model are compared with the
compiled ones. The seconds are processor time, without that of the compiler.
"""

import argparse
import bz2
import functools
import lzma
import math
import os
import random
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from processor import describe_processor

from minigpt.acceleration import compile_context_mixing
from minigpt.data.corpus import find_corpus
from minigpt.model.context_mixing import EXPERTS, CharacterTable, ContextMixer, ContextMixingConfig
from minigpt.model.ngram import NGramModel
from minigpt.tokenizers.char import CharTokenizer

ZPAQ_MARGIN = 8192  # bytes above a power of two
RACE_CHARACTERS = 1000
RACE_ROUNDS = 3
GROUPS = {  # of experts, by the beginnings of their names
    "orders 0 to 3": ("order 0", "order 1", "order 2", "order 3"),
    "orders 4 to 6": ("order 4", "order 5", "order 6"),
    "orders 7 to 12": ("order 7", "order 8", "order 9", "order 12"),
    "new after a shorter context": ("new after",),
    "lower case": tuple(name for name in EXPERTS if name.endswith("lower case")),
    "the word alone": ("word",),
    "two and three words": tuple(name for name in EXPERTS if name.startswith("word and the")),
    "word and gap": ("word and gap",),
    "the speaker": ("speaker", "word and speaker"),
    "the place in the line": ("column", "the line above"),
    "kinds of characters": ("kinds",),
    "sparse contexts": ("without",),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--tune", action="store_true", help="measure on the last tenth of the training text")
    parser.add_argument("--ablation", action="store_true", help="leave out groups of experts; only with --tune")
    parser.add_argument("--kernel", action="store_true", help="compare the plain functions with the compiled ones")
    arguments = parser.parse_args()
    if arguments.ablation and not arguments.tune:
        parser.error("an ablation decides what stays, so it is never made on the validation text: add --tune")
    text = find_corpus(arguments.data).text
    if arguments.tune:
        text = text[: int(0.9 * len(text))]
    if arguments.kernel:
        print(f"{describe_processor()}; microseconds a character\n")
        compare_functions(text[: 2 * RACE_CHARACTERS])
        return
    cut = int(0.9 * len(text))
    print(f"{describe_processor()}; {len(text) - cut:,} characters after {cut:,}\n")
    if arguments.ablation:
        print_ablation(text, cut)
    else:
        print_rivals(text, cut)


def print_rivals(text: str, cut: int) -> None:
    """Print the loss of each model and of each compressor."""
    print("| model | static | adaptive | seconds |\n| --- | --- | --- | --- |")
    for name, compress in find_compressors(len(text[:cut].encode())).items():
        start = time.perf_counter()
        size = compress(text.encode()) - compress(text[:cut].encode())
        seconds = (time.perf_counter() - start) / 2
        print(f"| {name} | | {size * 8 * math.log(2) / (len(text) - cut):.4f} | {seconds:.1f} |", flush=True)
    tokenizer, ids = encode(text)
    start = time.process_time()
    ngram = NGramModel.fit(ids[:cut].tolist(), tokenizer.vocab_size, 7)
    loss = ngram.token_losses(ids[cut:].tolist()).mean().item()
    print(f"| modified Kneser-Ney, order 7 | {loss:.4f} | | {time.process_time() - start:.1f} |", flush=True)
    static, adaptive, seconds = measure_mixer(tokenizer, ids, cut)
    print(f"| context mixing, for unknown text | {static:.4f} | {adaptive:.4f} | {seconds:.1f} |", flush=True)
    static, adaptive, seconds = measure_mixer(tokenizer, ids, cut, delay=0)
    print(f"| context mixing, without delay | {static:.4f} | {adaptive:.4f} | {seconds:.1f} |", flush=True)


def print_ablation(text: str, cut: int) -> None:
    """Print what each group of experts is worth."""
    tokenizer, ids = encode(text)
    print("| without | experts | static | worth | adaptive | worth | seconds |\n" + "| --- " * 7 + "|")
    whole: tuple[float, float] | None = None
    for group, beginnings in {"(all experts)": (), **GROUPS}.items():
        left_out = tuple(name for name in EXPERTS if any(matches(name, beginning) for beginning in beginnings))
        static, adaptive, seconds = measure_mixer(tokenizer, ids, cut, left_out=left_out)
        whole = whole or (static, adaptive)
        worth = f"{static - whole[0]:+.4f} | {adaptive:.4f} | {adaptive - whole[1]:+.4f}"
        print(f"| {group} | {len(left_out) or len(EXPERTS)} | {static:.4f} | {worth} | {seconds:.0f} |", flush=True)


def compare_functions(text: str) -> None:
    """Print how long the plain and the compiled functions take to predict and to learn from a character."""
    tokenizer, ids = encode(text)
    table, config = make_table(tokenizer), ContextMixingConfig(tokenizer.vocab_size)
    print("| round | plain | compiled | plain / compiled |\n| --- | --- | --- | --- |")
    for number in range(1, RACE_ROUNDS + 1):
        times = []
        for functions in (None, compile_context_mixing()):
            model = ContextMixer.fit(ids[:RACE_CHARACTERS], table, config, functions)
            start = time.process_time()
            model.learn(ids[RACE_CHARACTERS:])
            times.append((time.process_time() - start) / RACE_CHARACTERS * 1e6)
        plain, compiled = times
        print(f"| {number} | {plain:,.0f} | {compiled:,.0f} | {plain / compiled:.0f} |", flush=True)


def encode(text: str) -> tuple[CharTokenizer, np.ndarray]:
    """Return the tokenizer of a text, and its ids."""
    tokenizer = CharTokenizer.from_text(text)
    return tokenizer, np.array(tokenizer.encode(text))


def make_table(tokenizer: CharTokenizer) -> CharacterTable:
    """Return the table of a tokenizer's characters."""
    return CharacterTable.from_characters([tokenizer.itos[i] for i in range(tokenizer.vocab_size)])


def matches(name: str, beginning: str) -> bool:
    """Return True if an expert belongs to a group: by its whole name, or by the beginning for several experts."""
    return name == beginning or (beginning in ("new after", "kinds", "without") and name.startswith(beginning))


def measure_mixer(
    tokenizer: CharTokenizer, ids: np.ndarray, cut: int, **settings: object
) -> tuple[float, float, float]:
    """Return the static loss, the adaptive loss and the seconds of both together with the training."""
    functions = compile_context_mixing()
    config = ContextMixingConfig(tokenizer.vocab_size, **settings)  # type: ignore[arg-type]
    start = time.process_time()
    model = ContextMixer.fit(ids[:cut], make_table(tokenizer), config, functions)
    static = float(model.token_losses(ids[cut:]).mean())
    adaptive = float(model.learn(ids[cut:]).mean())
    return static, adaptive, time.process_time() - start


def find_compressors(shorter: int) -> dict[str, Callable[[bytes], int]]:
    """Return functions that return the size of compressed data, by the name of the compressor, where installed.

    Args:
        shorter: the length in bytes of the shorter of the two texts that are compared.
    """
    found: dict[str, Callable[[bytes], int]] = {
        "gzip -9": lambda data: len(zlib.compress(data, 9)),
        "bzip2 -9": lambda data: len(bz2.compress(data, 9)),
        "xz -9e": lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    try:
        import zstandard

        found["zstd --ultra -22"] = lambda data: len(zstandard.ZstdCompressor(level=22).compress(data))
    except ImportError:
        pass
    try:
        import pyppmd

        found["PPMd, order 6"] = lambda data: len(pyppmd.Ppmd7Encoder(6, 1 << 28).encode(data))
    except ImportError:
        pass
    if shutil.which("zpaq"):
        found["zpaq -m5"] = functools.partial(measure_zpaq, shorter=shorter)
    return found


def measure_zpaq(data: bytes, shorter: int) -> int:
    """Return the size of zpaq's archive of random bytes and the data.

    zpaq takes twice the memory for each power of two in the length, and then codes all of a text in fewer bytes. The
    random bytes bring the two texts above the same power of two, so their difference is the last tenth alone.

    Args:
        data: the text.
        shorter: the length of the shorter of the two texts.
    """
    prefix = (1 << shorter.bit_length()) - shorter + ZPAQ_MARGIN
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text").write_bytes(random.Random(0).randbytes(prefix) + data)
        command = ["zpaq", "add", "archive.zpaq", "text", "-method", "5", "-threads", "1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ)
        return (Path(folder) / "archive.zpaq").stat().st_size


if __name__ == "__main__":
    main()

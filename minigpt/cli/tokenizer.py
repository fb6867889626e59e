"""`minigpt tokenizer`: learn one, look at it, use it, compare several."""

import sys
from pathlib import Path
from typing import Any

import click

from minigpt.cli.options import json_option
from minigpt.cli.output import print_json, print_message, print_pieces
from minigpt.config import DEFAULT_VOCAB_SIZE
from minigpt.errors import ConfigError, DataError, FileError

COLOURS = ("on #31456a", "on #5a3a5e", "on #2f5a4c", "on #6a5130")  # of neighbouring tokens, in turn
LONGEST_TEXT = 2**26  # bytes
file_argument = click.argument("tokenizer_file", metavar="FILE|RUN")


@click.group(short_help="Learn, look at, use and compare tokenizers.")
def tokenizer() -> None:
    """Learn a tokenizer from a text, look at it, use it, compare several."""


@tokenizer.command(short_help="Learn a tokenizer from a text.")
@click.option("--data", metavar="FILE", help="the text; else input.txt here, else Tiny Shakespeare")
@click.option("--kind", type=click.Choice(["bpe", "sentencepiece", "char"]), default="bpe", help="which [bpe]")
@click.option(
    "--vocab-size", type=int, default=DEFAULT_VOCAB_SIZE, help=f"how many tokens to learn [{DEFAULT_VOCAB_SIZE}]"
)
@click.option("--pattern", type=click.Choice(["gpt2", "gpt4"]), default="gpt2", help="how bpe cuts words [gpt2]")
@click.option("--method", type=click.Choice(["unigram", "bpe"]), default="unigram", help="SentencePiece's [unigram]")
@click.option("--special", multiple=True, metavar="TOKEN", help="a special token of bpe; may be given several times")
@click.option("--out", metavar="FILE", help="where to write it [tokenizer.json, tokenizer.model]")
@json_option
def train(
    data: str | None,
    kind: str,
    vocab_size: int,
    pattern: str,
    method: Any,
    special: tuple[str, ...],
    out: str | None,
    as_json: bool,
) -> None:
    """Learn a tokenizer from a text and write it to a file, which minigpt train --tokenizer takes."""
    from minigpt.data.corpus import find_corpus
    from minigpt.tokenizers.base import Tokenizer
    from minigpt.tokenizers.bpe import BPETokenizer
    from minigpt.tokenizers.char import CharTokenizer
    from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

    require_fitting(kind)
    path = Path(out or ("tokenizer.model" if kind == "sentencepiece" else "tokenizer.json"))
    if (path.suffix == ".model") != (kind == "sentencepiece"):
        raise FileError(f"the name {str(path)!r} does not fit: a file of SentencePiece's ends in .model, others do not")
    corpus = find_corpus(data, print_message)
    learned: Tokenizer
    if kind == "bpe":
        learned = BPETokenizer.train(corpus.text, vocab_size, special, pattern, processes=cores())
    elif kind == "sentencepiece":
        learned = SentencePieceTokenizer.train(corpus.text, vocab_size, method)
    else:
        learned = CharTokenizer.from_text(corpus.text)
    learned.save(path)
    tokens = len(learned.encode(corpus.text))
    if as_json:
        figures = {"tokens": tokens, "characters": len(corpus.text), "tokens_per_character": tokens / len(corpus.text)}
        print_json({"tokenizer": str(path), "kind": kind, "vocab_size": learned.vocab_size, **figures})
    else:
        each = len(corpus.text) / tokens
        print_pieces([f"{path}: {learned.vocab_size:,} tokens; {each:.2f} characters of {corpus.source} in each\n"])


def require_fitting(kind: str) -> None:
    """Raise ConfigError for an option on the command line that this kind doesn't have."""
    context = click.get_current_context()
    belong = {"pattern": "bpe", "special": "bpe", "method": "sentencepiece"}
    foreign = [name for name, owner in belong.items() if owner != kind] + ["vocab_size"] * (kind == "char")
    for name in foreign:
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise ConfigError(f"--kind {kind} has no --{name.replace('_', '-')}: leave it out")


def cores() -> int:
    """How many processes may work at once."""
    import os

    return os.cpu_count() or 1


@tokenizer.command(short_help="Show what a tokenizer has learned, and how it cuts a text.")
@file_argument
@click.option("--text", help="a text to colour by token; '-' reads it from standard input")
@click.option("--limit", type=click.IntRange(min=0), default=50, help="how many merges, or tokens, to list [50]")
def show(tokenizer_file: str, text: str | None, limit: int) -> None:
    """Show the merges of a tokenizer in the order learned, or its tokens, and a text coloured by token."""
    from minigpt.system.terminal import escape_control_characters
    from minigpt.tokenizers.base import fingerprint
    from minigpt.tokenizers.bpe import BPETokenizer
    from minigpt.tokenizers.loading import load_tokenizer

    opened = load_tokenizer(tokenizer_file)
    print_pieces([f"{opened.kind}, {opened.vocab_size:,} tokens, SHA-256 {fingerprint(opened)[:16]}…\n"])
    if isinstance(opened, BPETokenizer):
        for name, i in opened.special_tokens.items():
            print_pieces([f"{i:>7}  {escape_control_characters(name, keep='')}  special\n"])
        ids = {token: i for i, token in reversed(opened.vocab.items())}
        lines = [f"{ids[a + b]:>7}  {shown(a)} + {shown(b)} → {shown(a + b)}" for a, b in opened.merges[:limit]]
    else:
        lines = [f"{i:>7}  {shown(opened.decode_bytes([i]))}" for i in range(min(limit, opened.vocab_size))]
    print_pieces(line + "\n" for line in lines)
    if text is not None:
        tokens = [opened.decode_bytes([i]) for i in opened.encode(given_text(text))]
        colour(tokens)


def shown(token: bytes) -> str:
    """A token as Python writes text, or bytes where they are none, so that blanks can be seen."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)


def colour(tokens: list[bytes]) -> None:
    """Print the text, its tokens on different backgrounds; where there are no colours, with bars between them."""
    from rich.console import Console
    from rich.text import Text

    from minigpt.system.terminal import escape_control_characters

    console = Console(soft_wrap=True, highlight=False)
    pieces = [escape_control_characters(token.decode("utf-8", "replace")) for token in tokens]
    if console.is_terminal:
        line = Text()
        for n, piece in enumerate(pieces):
            line.append(piece.replace("\n", "⏎\n"), COLOURS[n % len(COLOURS)])
        console.print(line)
    else:
        print_pieces(["|".join(pieces), "\n"])
    print_pieces([f"{len(tokens):,} tokens, {sum(map(len, tokens)):,} bytes\n"])


@tokenizer.command(short_help="Text to token ids.")
@file_argument
@click.argument("text")
@json_option
def encode(tokenizer_file: str, text: str, as_json: bool) -> None:
    """Turn TEXT, or with '-' standard input, into token ids."""
    from minigpt.tokenizers.loading import load_tokenizer

    text = given_text(text)
    ids = load_tokenizer(tokenizer_file).encode(text)
    if as_json:
        print_json({"ids": ids, "tokens": len(ids), "characters": len(text)})
    else:
        print(*ids)


@tokenizer.command(short_help="Token ids to text.")
@file_argument
@click.argument("ids", nargs=-1)
def decode(tokenizer_file: str, ids: tuple[str, ...]) -> None:
    """Turn token IDS, or with '-' those on standard input, into the bytes of their text; on a terminal, the text."""
    from minigpt.tokenizers.loading import load_tokenizer

    words = given_text("-").split() if ids == ("-",) else ids
    numbers = [number_in(word) for word in words]
    content = load_tokenizer(tokenizer_file).decode_bytes(numbers)
    if sys.stdout.isatty():
        print_pieces([content.decode("utf-8", "replace"), "\n"])
    else:
        sys.stdout.buffer.write(content + b"\n")


def number_in(word: str) -> int:
    """The whole number that a word is."""
    try:
        return int(word)
    except ValueError:
        raise DataError(f"{word[:20]!r} is no token id: ids are whole numbers") from None


def given_text(text: str) -> str:
    """The text itself, or with '-' what standard input holds."""
    if text != "-":
        return text
    from minigpt.system.files import decode_text

    content = sys.stdin.buffer.read(LONGEST_TEXT + 1)
    if len(content) > LONGEST_TEXT:
        raise FileError(f"standard input is larger than {LONGEST_TEXT:,} bytes, the limit here: use a part of it")
    return decode_text(content, "standard input")


@tokenizer.command(short_help="Train a model with each kind of tokenizer, and compare them.")
@click.option("--data", metavar="FILE", help="the text; else input.txt here, else Tiny Shakespeare")
@click.option(
    "--vocab-size", type=int, default=DEFAULT_VOCAB_SIZE, help=f"of bpe and sentencepiece [{DEFAULT_VOCAB_SIZE}]"
)
@click.option("--max-iters", type=click.IntRange(min=1), default=5000, help="steps of the character model [5000]")
@click.option("--prompt", default="ROMEO:", help="a text for each to continue [ROMEO:]")
@click.option("--seed", type=click.IntRange(min=0), default=1337, help="of weights, batches and samples [1337]")
@click.option("--out", metavar="FOLDER", default="runs/tokenizers", help="where the runs go [runs/tokenizers]")
@json_option
def compare(data: str | None, vocab_size: int, max_iters: int, prompt: str, seed: int, out: str, as_json: bool) -> None:
    """Train the lecture's model on characters, BPE and SentencePiece, each for the same arithmetic, and compare them.

    The unit is bits per byte of the text, the only one in which models with different tokens can be compared.
    """
    from minigpt.studies.tokenizer_comparison import compare, table

    found = compare(data, Path(out), vocab_size, max_iters, prompt, seed)
    if as_json:
        print_json({"out": out, "models": [vars(model) for model in found]})
    else:
        print_pieces([table(found), "\n"])
        for model in found:
            print_pieces([f"\n--- {model.tokenizer} ---\n{model.text}\n"])
        print_pieces([f"\nthe picture and the runs are in {out}\n"])

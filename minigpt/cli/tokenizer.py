"""`minigpt tokenizer`: train a tokenizer, show it, use it, compare several."""

import sys
from pathlib import Path
from typing import Any

import click

from minigpt.cli.options import data_option, json_option, text_format_options
from minigpt.cli.output import print_json, print_line, print_message, print_pieces
from minigpt.cli.standard_input import read_standard_input
from minigpt.config import DEFAULT_VOCAB_SIZE, Config, DataPath
from minigpt.config_fields import drop_unset
from minigpt.errors import ConfigError, DataError, FileError

COLORS = ("on #31456a", "on #5a3a5e", "on #2f5a4c", "on #6a5130")  # tokens have them in turn
MAX_TEXT = 2**26  # bytes
file_argument = click.argument("tokenizer_file", metavar="FILE|RUN")


@click.group(short_help="Train, show, use and compare tokenizers.")
def tokenizer() -> None:
    """Train a tokenizer on a text, show it, use it, and compare several tokenizers."""


@tokenizer.command(short_help="Train a tokenizer on a text.")
@data_option("the text [input.txt here, or Tiny Shakespeare]", "FILE")
@click.option(
    "--kind", type=click.Choice(["bpe", "sentencepiece", "char"]), default="bpe", help="kind of tokenizer [bpe]"
)
@click.option("--vocab-size", type=int, default=DEFAULT_VOCAB_SIZE, help=f"number of tokens [{DEFAULT_VOCAB_SIZE}]")
@click.option(
    "--pattern",
    type=click.Choice(["gpt2", "gpt4"]),
    default="gpt2",
    help="the pattern by which bpe splits text into words [gpt2]",
)
@click.option(
    "--method", type=click.Choice(["unigram", "bpe"]), default="unigram", help="the method of sentencepiece [unigram]"
)
@click.option("--special", multiple=True, metavar="TOKEN", help="a special token of bpe; may be repeated")
@click.option("--out", metavar="FILE", help="the file [tokenizer.json, or tokenizer.model of sentencepiece]")
@text_format_options()
@json_option
def train(
    data: DataPath,
    kind: str,
    vocab_size: int,
    pattern: str,
    method: Any,
    special: tuple[str, ...],
    out: str | None,
    as_json: bool,
    **text_format: Any,
) -> None:
    """Train a tokenizer on a text and write it to a file, for minigpt train --tokenizer."""
    from minigpt.data.corpus import find_corpus
    from minigpt.data.text_format import TextFormat
    from minigpt.system.cpus import count_cpus
    from minigpt.tokenizers.base import Tokenizer
    from minigpt.tokenizers.bpe import BPETokenizer
    from minigpt.tokenizers.char import CharTokenizer
    from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

    _require_options_for(kind)
    path = Path(out or ("tokenizer.model" if kind == "sentencepiece" else "tokenizer.json"))
    if (path.suffix == ".model") != (kind == "sentencepiece"):
        raise FileError(f"{str(path)!r} has the wrong ending: .model is for SentencePiece, .json for other tokenizers")
    corpus = find_corpus(data, print_message, text_format=TextFormat(**drop_unset(text_format)))
    trained: Tokenizer
    if kind == "bpe":
        trained = BPETokenizer.train(corpus.text, vocab_size, special, pattern, processes=count_cpus())
    elif kind == "sentencepiece":
        trained = SentencePieceTokenizer.train(corpus.text, vocab_size, method)
    else:
        trained = CharTokenizer.from_text(corpus.text)
    trained.save(path)
    tokens = len(trained.encode(corpus.text))
    if as_json:
        figures = {"tokens": tokens, "characters": len(corpus.text), "tokens_per_character": tokens / len(corpus.text)}
        print_json({"tokenizer": str(path), "kind": kind, "vocab_size": trained.vocab_size, **figures})
    else:
        each = len(corpus.text) / tokens
        print_line(f"{path}: {trained.vocab_size:,} tokens; {each:.2f} characters of {corpus.source} in each")


def _require_options_for(kind: str) -> None:
    """Raise ConfigError for an option on the command line that this kind does not have."""
    context = click.get_current_context()
    owners = {"pattern": "bpe", "special": "bpe", "method": "sentencepiece"}
    foreign = [name for name, owner in owners.items() if owner != kind] + ["vocab_size"] * (kind == "char")
    for name in foreign:
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise ConfigError(f"--kind {kind} has no --{name.replace('_', '-')}: leave it out")


@tokenizer.command(short_help="Show a tokenizer, and how it splits a text.")
@file_argument
@click.option("--text", help="a text to color by token; '-' reads standard input")
@click.option("--limit", type=click.IntRange(min=0), default=50, help="number of merges, or tokens, to list [50]")
@json_option
def show(tokenizer_file: str, text: str | None, limit: int, as_json: bool) -> None:
    """Show a tokenizer: its merges in the order of training, or its tokens. --text adds a text colored by token."""
    from minigpt.system.terminal import escape_control_characters
    from minigpt.tokenizers.base import compute_fingerprint
    from minigpt.tokenizers.bpe import BPETokenizer
    from minigpt.tokenizers.loading import load_tokenizer

    loaded = load_tokenizer(tokenizer_file)
    if as_json:
        content = {"tokenizer": tokenizer_file, "kind": loaded.kind, "vocab_size": loaded.vocab_size}
        content |= {"sha256": compute_fingerprint(loaded), "special_tokens": dict(loaded.special_tokens)}
        content["tokens"] = [_decode(loaded.decode_bytes([i])) for i in range(min(limit, loaded.vocab_size))]
        if text is not None:
            content["text"] = [_decode(loaded.decode_bytes([i])) for i in loaded.encode(_read_text(text))]
        print_json(content)
        return
    print_line(f"{loaded.kind}, {loaded.vocab_size:,} tokens, SHA-256 {compute_fingerprint(loaded)[:16]}…")
    if isinstance(loaded, BPETokenizer):
        for name, i in loaded.special_tokens.items():
            print_line(f"{i:>7}  {escape_control_characters(name, keep='')}  special")
        for token in loaded.added_tokens:
            print_line(f"{token.id:>7}  {escape_control_characters(token.text, keep='')}  added")
        lines = [
            f"{loaded.ids[a + b]:>7}  {_format_token(a)} + {_format_token(b)} → {_format_token(a + b)}"
            for a, b in loaded.merges[:limit]
        ]
    else:
        lines = [f"{i:>7}  {_format_token(loaded.decode_bytes([i]))}" for i in range(min(limit, loaded.vocab_size))]
    print_pieces(line + "\n" for line in lines)
    if text is not None:
        tokens = [loaded.decode_bytes([i]) for i in loaded.encode(_read_text(text))]
        _print_colored(tokens)


def _decode(content: bytes) -> str:
    """Return bytes as text; what is not UTF-8, such as a part of a character, becomes U+FFFD."""
    return content.decode("utf-8", "replace")


def _format_token(token: bytes) -> str:
    """Return a token in quotes, as text or, if it is not UTF-8, as bytes."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)


def _print_colored(tokens: list[bytes]) -> None:
    """Print a text with its tokens on different backgrounds. Without a terminal, print bars between them."""
    from rich.console import Console
    from rich.text import Text

    from minigpt.system.terminal import escape_control_characters

    console = Console(soft_wrap=True, highlight=False)
    pieces = [escape_control_characters(token.decode("utf-8", "replace")) for token in tokens]
    if console.is_terminal:
        line = Text()
        for n, piece in enumerate(pieces):
            line.append(piece.replace("\n", "⏎\n"), COLORS[n % len(COLORS)])
        console.print(line)
    else:
        print_line("|".join(pieces))
    print_line(f"{len(tokens):,} tokens, {sum(map(len, tokens)):,} bytes")


@tokenizer.command(short_help="Encode text to token ids.")
@file_argument
@click.argument("text")
@json_option
def encode(tokenizer_file: str, text: str, as_json: bool) -> None:
    """Encode TEXT, or standard input with '-', to token ids."""
    from minigpt.tokenizers.loading import load_tokenizer

    text = _read_text(text)
    ids = load_tokenizer(tokenizer_file).encode(text)
    if as_json:
        print_json({"ids": ids, "tokens": len(ids), "characters": len(text)})
    else:
        print(*ids)


@tokenizer.command(short_help="Decode token ids to text.")
@file_argument
@click.argument("ids", nargs=-1)
@json_option
def decode(tokenizer_file: str, ids: tuple[str, ...], as_json: bool) -> None:
    """Decode token IDS to text. '-' reads the ids from standard input. A file or a pipe gets the exact bytes."""
    from minigpt.tokenizers.loading import load_tokenizer

    words = _read_text("-").split() if ids == ("-",) else ids
    numbers = [_parse_id(word) for word in words]
    content = load_tokenizer(tokenizer_file).decode_bytes(numbers)
    if as_json:
        print_json({"text": _decode(content), "tokens": len(numbers)})
    elif sys.stdout.isatty():
        print_line(_decode(content))
    else:
        sys.stdout.buffer.write(content + b"\n")


def _parse_id(word: str) -> int:
    """Return the token id that a word is."""
    try:
        return int(word)
    except ValueError:
        raise DataError(f"{word[:20]!r} is not a token id: ids are whole numbers") from None


def _read_text(text: str) -> str:
    """Return the text, or for '-' the text of standard input."""
    return read_standard_input(MAX_TEXT) if text == "-" else text


@tokenizer.command(short_help="Train a model with each kind of tokenizer, and compare them.")
@data_option("the text [input.txt here, or Tiny Shakespeare]", "FILE")
@click.option(
    "--vocab-size",
    type=int,
    default=DEFAULT_VOCAB_SIZE,
    help=f"number of tokens of bpe and sentencepiece [{DEFAULT_VOCAB_SIZE}]",
)
@click.option(
    "--max-iters", type=click.IntRange(min=1), default=5000, help="training steps of the character model [5000]"
)
@click.option("--prompt", default="ROMEO:", help="a text that each model continues [ROMEO:]")
@click.option("--seed", type=click.IntRange(min=0), default=1337, help="seed of weights, batches and samples [1337]")
@click.option("--out", metavar="FOLDER", default="runs/tokenizers", help="the folder of the runs [runs/tokenizers]")
@text_format_options()
@json_option
def compare(
    data: DataPath,
    vocab_size: int,
    max_iters: int,
    prompt: str,
    seed: int,
    out: str,
    as_json: bool,
    **text_format: Any,
) -> None:
    """Train the lecture's model on characters, BPE and SentencePiece tokens, and compare the three.

    Each model trains with the same number of FLOPs. The losses are in bits per byte of the text, because losses per
    token cannot be compared between tokenizers.
    """
    from minigpt.studies.tokenizer_comparison import compare_tokenizers, format_table

    settings = Config.from_preset("lecture").override(**drop_unset(text_format))
    found = compare_tokenizers(data, Path(out), vocab_size, max_iters, prompt, seed, settings)
    if as_json:
        print_json({"out": out, "models": [vars(model) for model in found]})
    else:
        print_line(format_table(found))
        for model in found:
            print_line(f"\n--- {model.tokenizer} ---\n{model.text}")
        print_line(f"\nthe picture and the runs are in {out}")

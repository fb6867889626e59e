"""`minigpt data`: encode files of text into token ids on disk, for corpora of any size."""

import re
import time
from typing import TYPE_CHECKING, Any, get_args

import click

from minigpt.cli.options import json_option, text_format_options
from minigpt.cli.output import print_json, print_line
from minigpt.config import DEFAULT_VOCAB_SIZE, TokenizerKind
from minigpt.config_fields import drop_unset

if TYPE_CHECKING:
    from minigpt.data.shards import Index

KINDS = get_args(TokenizerKind)
ESCAPES = re.compile(r"\\(?:[\\nrtfv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
SECONDS_BETWEEN_UPDATES = 0.1


@click.group(short_help="Prepare text of any size for training.")
def data() -> None:
    """Encode files of text into token ids on disk, for minigpt train --data. The text may be larger than memory."""


@data.command(short_help="Encode files, folders and patterns into a folder.")
@click.argument("paths", nargs=-1, required=True)
@click.option(
    "--out", required=True, metavar="FOLDER", help="the folder of the shards; an interrupted preparation continues here"
)
@click.option(
    "--tokenizer",
    metavar="KIND|FILE",
    default="char",
    help=f"kind of tokenizer: {', '.join(KINDS)}; or a tokenizer file, or a run whose tokenizer to use [char]",
)
@click.option("--vocab-size", type=int, help=f"number of tokens of bpe or sentencepiece [{DEFAULT_VOCAB_SIZE}]")
@click.option("--min-count", type=int, help="replace characters that occur less often by U+FFFD [keep all]")
@click.option(
    "--field",
    default="text",
    help="the JSON field, or Parquet column, that has the text; a.b is the field b in a [text]",
)
@click.option(
    "--separator",
    metavar="TEXT",
    help=r"text between two documents of a text file, such as '\n\n' [each file is one document]",
)
@text_format_options()
@click.option(
    "--train-fraction",
    type=float,
    default=0.9,
    help="share of documents to train on; the rest is the validation split [0.9]",
)
@click.option("--processes", type=click.IntRange(min=1), help="number of processes that encode [one for each core]")
@json_option
def prepare(
    paths: tuple[str, ...], out: str, processes: int | None, as_json: bool, separator: str | None, **settings: Any
) -> None:
    r"""Encode PATHS (files, folders, patterns) into shards of token ids, with an index and the tokenizer.

    Files are .txt, .md, .jsonl, .ndjson or .parquet, each also with .gz or .zst. A text file is one document, unless
    --separator splits it. JSON lines and Parquet have a document in each line or row. An end-of-text token follows
    each document. The SHA-256 of a document's text decides whether the document is in the training or in the
    validation split. After an interruption, the same command continues.
    """
    from minigpt.data.prepare import PrepareSettings, prepare_corpus

    if separator is not None:
        separator = ESCAPES.sub(lambda found: found[0].encode().decode("unicode_escape"), separator)
    with _EncodingProgress() as progress:
        index = prepare_corpus(
            paths, out, PrepareSettings(separator=separator, **drop_unset(settings)), progress, processes
        )
    _print_index(out, index, as_json)


@data.command(short_help="Check a prepared folder and show what is in it.")
@click.argument("folder")
@json_option
def info(folder: str, as_json: bool) -> None:
    """Check every shard of a prepared FOLDER by its SHA-256, and show what is in it."""
    from minigpt.data.prepared_data import PreparedData

    _print_index(folder, PreparedData(folder).index, as_json)


def _print_index(folder: str, index: "Index", as_json: bool) -> None:
    """Print what is in a prepared folder."""
    counts = {name: index.total(name) for name in ("documents", "characters", "bytes")}
    tokens = {"train_tokens": index.tokens("train"), "validation_tokens": index.tokens("val")}
    if as_json:
        about = {"vocab_size": index.vocab_size, "tokenizer_sha256": index.tokenizer_sha256, "dtype": index.dtype.name}
        shards = len(index.shards("train")) + len(index.shards("val"))
        met = {"replaced": index.replaced, "empty": index.empty, "shards": shards}
        print_json({"data": folder, **counts, **tokens, **about, **met})
        return
    print_line(f"{folder}: {counts['documents']:,} documents, {counts['characters']:,} characters")
    splits = f"{tokens['train_tokens']:,} training tokens, {tokens['validation_tokens']:,} validation tokens"
    print_line(f"{splits}; {index.vocab_size:,} different, as {index.dtype.name}")
    if index.replaced:
        print_line(f"{index.replaced:,} places were not UTF-8 and became U+FFFD")
    if index.empty:
        print_line(f"{index.empty:,} empty documents were left out")


class _EncodingProgress:
    """A progress bar over the bytes read, on a terminal. Elsewhere it prints lines only."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        from minigpt.system.console import PipeSafeConsole

        self.console = console = PipeSafeConsole(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TimeRemainingColumn())
        self.live = console.is_terminal and not console.is_dumb_terminal
        self.bar = Progress(*columns, console=console, transient=True, disable=not self.live)
        self.shown = 0.0

    def __enter__(self) -> "_EncodingProgress":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """Print a line of text."""
        self.console.say(text)

    def begin(self, title: str, total: int) -> None:
        """Start a new bar in place of the last one."""
        for task in self.bar.task_ids:
            self.bar.remove_task(task)
        self.bar.add_task(title, total=total)

    def update(self, position: int) -> None:
        """Move the bar, at most a few times a second."""
        if time.monotonic() - self.shown > SECONDS_BETWEEN_UPDATES:
            self.shown = time.monotonic()
            self.bar.update(self.bar.task_ids[-1], completed=position)

"""`minigpt data`: files of text to token ids on disk, for corpora of any size."""

import time
from typing import TYPE_CHECKING, Any, get_args

import click

from minigpt.cli.options import json_option
from minigpt.cli.output import print_json, print_pieces
from minigpt.config import DEFAULT_VOCAB_SIZE, TokenizerKind

if TYPE_CHECKING:
    from minigpt.data.shards import Index

KINDS = get_args(TokenizerKind)
SECONDS_BETWEEN_UPDATES = 0.1


@click.group(short_help="Prepare text of any size for training.")
def data() -> None:
    """Turn files of text into token ids on disk, which minigpt train --data takes: more than fits in memory."""


@data.command(short_help="Encode files, folders and patterns into a folder.")
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", required=True, metavar="FOLDER", help="where the shards go; one already begun is gone on with")
@click.option(
    "--tokenizer",
    metavar="KIND|FILE",
    default="char",
    help=f"what text is cut into: {', '.join(KINDS)}; or the file, or the run, of a tokenizer that there is [char]",
)
@click.option("--vocab-size", type=int, help=f"how many tokens bpe or sentencepiece learn [{DEFAULT_VOCAB_SIZE}]")
@click.option("--min-count", type=int, help="replace rarer characters by one unknown sign, U+FFFD [keep all]")
@click.option("--field", default="text", help="field of JSON lines, or column of Parquet, with the text [text]")
@click.option("--separator", metavar="TEXT", help=r"between two documents in a text file, '\n\n' say [a file is one]")
@click.option(
    "--errors", type=click.Choice(["strict", "replace"]), default="strict", help="what is not UTF-8: refuse [strict]"
)
@click.option("--train-fraction", type=float, default=0.9, help="share of documents to train on [0.9]")
@click.option("--processes", type=click.IntRange(min=1), help="how many encode at once [as many as there are cores]")
@json_option
def prepare(
    paths: tuple[str, ...], out: str, processes: int | None, as_json: bool, separator: str | None, **settings: Any
) -> None:
    r"""Encode PATHS (files, folders, patterns) into shards of token ids, with an index and the tokenizer.

    .txt, .md, .jsonl and .parquet, each also .gz or .zst. A text file is a document, unless a --separator cuts it;
    JSON lines and Parquet have one in each line or row. After each stands an end-of-text token. Which documents
    validate is decided by the SHA-256 of their text. Stopped at any moment, the same command goes on.
    """
    from minigpt.data.prepare import PrepareSettings, prepare_corpus

    if separator is not None:
        separator = separator.replace(r"\n", "\n").replace(r"\t", "\t")
    with Bar() as bar:
        index = prepare_corpus(paths, out, PrepareSettings(separator=separator, **settings), bar, processes)
    show(out, index, as_json)


@data.command(short_help="Check a prepared folder and show what is in it.")
@click.argument("folder")
@json_option
def info(folder: str, as_json: bool) -> None:
    """Check a prepared FOLDER, every shard by its SHA-256, and show what is in it."""
    from minigpt.data.prepared_data import PreparedData

    show(folder, PreparedData(folder).index, as_json)


def show(folder: str, index: "Index", as_json: bool) -> None:
    """What is in a prepared folder."""
    counts = {name: index.total(name) for name in ("documents", "characters", "bytes")}
    tokens = {"train_tokens": index.tokens("train"), "validation_tokens": index.tokens("val")}
    if as_json:
        about = {"vocab_size": index.vocab_size, "tokenizer_sha256": index.tokenizer_sha256, "dtype": index.dtype.name}
        shards = len(index.shards("train")) + len(index.shards("val"))
        met = {"replaced": index.replaced, "empty": index.empty, "shards": shards}
        print_json({"data": folder, **counts, **tokens, **about, **met})
        return
    print_pieces([f"{folder}: {counts['documents']:,} documents, {counts['characters']:,} characters\n"])
    print_pieces([f"{tokens['train_tokens']:,} tokens to train on, {tokens['validation_tokens']:,} to validate with; "])
    print_pieces([f"{index.vocab_size:,} different, as {index.dtype.name}\n"])
    if index.replaced:
        print_pieces([f"{index.replaced:,} places that were not UTF-8 are U+FFFD now\n"])
    if index.empty:
        print_pieces([f"{index.empty:,} documents had nothing in them and were left out\n"])


class Bar:
    """On a terminal a bar over the bytes read; elsewhere lines."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        from minigpt.system.console import PipeSafeConsole

        self.console = console = PipeSafeConsole(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TimeRemainingColumn())
        self.live = console.is_terminal and not console.is_dumb_terminal
        self.bar = Progress(*columns, console=console, transient=True, disable=not self.live)
        self.shown = 0.0

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line of text."""
        self.console.say(text)

    def begin(self, title: str, total: int) -> None:
        """A bar of that title, in the place of the one before."""
        for task in self.bar.task_ids:
            self.bar.remove_task(task)
        self.bar.add_task(title, total=total)

    def reached(self, position: int) -> None:
        """Move it, at most a few times a second."""
        if time.monotonic() - self.shown > SECONDS_BETWEEN_UPDATES:
            self.shown = time.monotonic()
            self.bar.update(self.bar.task_ids[-1], completed=position)

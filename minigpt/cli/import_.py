"""`minigpt import`."""

from typing import TYPE_CHECKING

import click

from minigpt.cli.options import json_option
from minigpt.cli.output import describe_run, print_json, print_line, print_message, print_next_command

if TYPE_CHECKING:
    from minigpt.runs.run import Run

out_option = click.option(
    "--out", metavar="FOLDER", help="the run's folder; a name already taken gets a number [runs/NAME]"
)

ABOUT_META = "its characters, nanoGPT's data/NAME/meta.pkl, or a tokenizer's file or folder [meta.pkl beside ckpt.pt]"


@click.group("import", short_help="Import a model from another program.")
def import_() -> None:
    """Import a model from another program as a run."""


@import_.command(short_help="Import a GGUF file of llama.cpp.")
@click.argument("source", metavar="FILE")
@out_option
@json_option
def gguf(source: str, out: str | None, as_json: bool) -> None:
    """Import a FILE in the format GGUF, with a GPT-2 and its tokenizer.

    Its numbers may be F32, F16 or Q8_0.
    """
    from minigpt.exchange.gguf_import import import_gguf

    _show_run(import_gguf(source, out), as_json)


@import_.command(short_help="Import a GPT-2 model from transformers.")
@click.argument("source", metavar="FOLDER|NAME")
@out_option
@json_option
def hf(source: str, out: str | None, as_json: bool) -> None:
    """Import a GPT-2 model that transformers saved to a FOLDER, or that is on the Hugging Face hub under a NAME.

    It needs the weights as safetensors, config.json, and tokenizer.json (or vocab.json and merges.txt).
    """
    from minigpt.exchange.huggingface_import import import_gpt2

    _show_run(import_gpt2(source, out, print_message), as_json)


@import_.command(short_help="Import a model from nanoGPT.")
@click.argument("source", metavar="FOLDER|FILE")
@click.option("--meta", metavar="FILE", help=ABOUT_META)
@out_option
@json_option
def nanogpt(source: str, meta: str | None, out: str | None, as_json: bool) -> None:
    """Import a model that nanoGPT trained: its out_dir, a FOLDER with ckpt.pt, or the FILE itself.

    A model without meta.pkl has GPT-2's tokens, whose tokenizer is fetched. No code of ckpt.pt or meta.pkl runs.
    """
    from minigpt.exchange.nanogpt_import import import_nanogpt

    _show_run(import_nanogpt(source, out, meta), as_json)


@import_.command(short_help="Import a model from the lecture's code.")
@click.argument("source", metavar="FOLDER|FILE")
@click.option("--data", metavar="FILE", help="its text, or a .json list of its characters [vocabulary.json beside it]")
@out_option
@json_option
def lecture(source: str, data: str | None, out: str | None, as_json: bool) -> None:
    """Import a state dict of the lecture's code: a .pt or .safetensors FILE, or a FOLDER of minigpt export.

    No code of a .pt file runs.
    """
    from minigpt.exchange.lecture_import import import_lecture

    _show_run(import_lecture(source, out, data), as_json)


def _show_run(run: "Run", as_json: bool) -> None:
    """Print the run that was imported."""
    if as_json:
        print_json(describe_run(run))
    else:
        print_line(f"imported {run.info.parameters:,} parameters")
        print_next_command(run, "sample")

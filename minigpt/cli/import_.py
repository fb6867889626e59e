"""`minigpt import`."""

from typing import TYPE_CHECKING

import click

from minigpt.cli.options import json_option
from minigpt.cli.output import describe_run, print_json, print_line, print_message, print_next_command

if TYPE_CHECKING:
    from minigpt.runs.run import Run


@click.group("import", short_help="Import a model from another program.")
def import_() -> None:
    """Import a model from another program as a run."""


@import_.command(short_help="Import a GGUF file of llama.cpp.")
@click.argument("source", metavar="FILE")
@click.option("--out", metavar="FOLDER", help="the run's folder; a name already taken gets a number [runs/NAME]")
@json_option
def gguf(source: str, out: str | None, as_json: bool) -> None:
    """Import a FILE in the format GGUF, with a GPT-2 and its tokenizer.

    Its numbers may be F32, F16 or Q8_0.
    """
    from minigpt.exchange.gguf_import import import_gguf

    _show_run(import_gguf(source, out), as_json)


@import_.command(short_help="Import a GPT-2 model from transformers.")
@click.argument("source", metavar="FOLDER|NAME")
@click.option("--out", metavar="FOLDER", help="the run's folder; a name already taken gets a number [runs/NAME]")
@json_option
def hf(source: str, out: str | None, as_json: bool) -> None:
    """Import a GPT-2 model that transformers saved to a FOLDER, or that is on the Hugging Face hub under a NAME.

    It needs the weights as safetensors, config.json, and tokenizer.json (or vocab.json and merges.txt).
    """
    from minigpt.exchange.huggingface import import_gpt2

    _show_run(import_gpt2(source, out, print_message), as_json)


def _show_run(run: "Run", as_json: bool) -> None:
    """Print the run that was imported."""
    if as_json:
        print_json(describe_run(run))
    else:
        print_line(f"imported {run.record.parameters:,} parameters")
        print_next_command(run, "sample")

"""`minigpt import`."""

import click

from minigpt.cli.options import json_option
from minigpt.cli.output import describe_run, print_json, print_pieces


@click.group("import", short_help="Take a model from elsewhere.")
def import_() -> None:
    """Take a model from elsewhere, and make a run of it."""


@import_.command(short_help="GPT-2 from transformers.")
@click.argument("source", metavar="FOLDER|NAME")
@click.option("--out", metavar="FOLDER", help="the run's folder; a name already taken gets a number [runs/NAME]")
@json_option
def hf(source: str, out: str | None, as_json: bool) -> None:
    """Make a run of a GPT-2 that transformers has saved to a FOLDER, or that the hub has under a NAME.

    Weights as safetensors, config.json, and tokenizer.json or vocab.json and merges.txt.
    """
    from minigpt.exchange.huggingface import import_gpt2

    run = import_gpt2(source, out)
    if as_json:
        print_json(describe_run(run))
    else:
        print_pieces(
            [f"the run is in {run.path}: {run.record.parameters:,} parameters; next: minigpt sample {run.path}\n"]
        )

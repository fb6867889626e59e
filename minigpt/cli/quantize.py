"""`minigpt quantize`."""

import shlex

import click

from minigpt.cli.options import json_option, weights_option
from minigpt.cli.output import describe, open_run, print_object


@click.command(short_help="Keep a model's matrices in 8 or 4 bits.")
@click.argument("run")
@click.option("--bits", type=int, default=4, help="8, a scale for each row, or 4, NF4 in blocks of 64 [4]")
@click.option("--data", metavar="FILE|FOLDER", help="a text to measure both on [the run's own]")
@click.option("--out", metavar="FOLDER", help="the new run's folder; a name already taken gets a number")
@weights_option
@json_option
def quantize(run: str, bits: int, data: str | None, out: str | None, weights: str, as_json: bool) -> None:
    """Make a run of RUN whose matrices take 8 or 4 bits a weight, and measure how much worse it is.

    In 4 bits the last layer and the embeddings stay in 32.
    """
    from minigpt.finetuning.quantize import quantize

    found = quantize(open_run(run, weights, device="cpu"), bits, out, data)
    sizes = {"bytes_before": found.bytes_before, "bytes_after": found.bytes_after}
    if as_json:
        print_object({**describe(found.run), **sizes, "loss_before": found.before, "loss_after": found.after})
        return
    print(f"weights {found.bytes_after:,} bytes, before {found.bytes_before:,}")
    if found.before is not None and found.after is not None:
        print(f"exact loss {found.after:.4f}, before {found.before:.4f}: {found.after - found.before:+.4f}")
    path = shlex.quote(str(found.run.path))
    print(f"the run is in {path}; next: minigpt sample {path}")

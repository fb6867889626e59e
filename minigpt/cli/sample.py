"""`minigpt sample`."""

import itertools
import os
import select
import stat
import sys
from typing import Any

import click

from minigpt.cli.options import (
    GroupedCommand,
    adapter_options,
    device_option,
    drop_unset,
    json_option,
    run_argument,
    settings_options,
    weights_option,
)
from minigpt.cli.output import open_run, print_json, print_pieces
from minigpt.config import SamplingConfig
from minigpt.errors import FileError
from minigpt.system.files import decode_text

LONGEST_PROMPT = 2**20  # bytes
PATIENCE = 0.5  # seconds


@click.command(cls=GroupedCommand, short_help="Let a trained model write.")
@run_argument
@click.option("--prompt", help="the text to continue; '-' reads it from standard input, as does a pipe [none]")
@click.option("--num-samples", type=int, default=1, help="how many texts to write, all at once [1]")
@weights_option
@device_option
@adapter_options
@json_option
@settings_options("Sampling", SamplingConfig)
def sample(
    run: str | None,
    prompt: str | None,
    num_samples: int,
    weights: str,
    device: str,
    adapters: tuple[str, ...],
    adapter_scale: float,
    as_json: bool,
    **fields: Any,
) -> None:
    """Let a trained model write.

    RUN is the folder of its run, or leave it out for the newest one in runs/. A single text appears as
    it is written, several when all are done. Without a prompt the model starts from a newline.
    """
    if fields["seed"] is None:
        fields["seed"] = int.from_bytes(os.urandom(4), "big")  # known, so that the text can be had again
    sampling = vars(SamplingConfig(**drop_unset(fields)))  # refused, if at all, before PyTorch is imported
    opened = open_run(run, weights, device, adapters, adapter_scale)
    if prompt is None or prompt == "-":
        prompt = piped_text(wait=prompt == "-")
    if as_json:
        samples = opened.generate_several(num_samples, prompt, **sampling)
        print_json({"run": str(opened.path), "prompt": prompt, "samples": samples, **sampling})
    elif num_samples == 1:
        pieces = opened.stream(prompt, **sampling)
        print_pieces(itertools.chain([prompt], pieces, ["\n"]))
    else:
        for number, text in enumerate(opened.generate_several(num_samples, prompt, **sampling), 1):
            print_pieces([f"--- {number} ---\n", text, "\n"])


def piped_text(wait: bool) -> str:
    """What standard input holds, if it is a file or a pipe; without `wait`, only a pipe that already has something.

    A program that was started with an idle pipe as its input must not wait for it for ever; one whose
    pipe is merely slow is told how to. Raises FileError for what is too long or not text.
    """
    if sys.stdin is None:
        return ""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not wait and stat.S_ISFIFO(mode):
        wait = os.name == "posix" and bool(select.select([sys.stdin], [], [], PATIENCE)[0])
        if not wait:
            click.echo("nothing has come through the pipe, so there is no prompt; --prompt - waits for one", err=True)
    if not (wait or stat.S_ISREG(mode)):
        return ""
    content = sys.stdin.buffer.read(LONGEST_PROMPT + 1)
    if len(content) > LONGEST_PROMPT:
        raise FileError(
            f"standard input is larger than {LONGEST_PROMPT:,} bytes, the limit of a prompt: use a part of it"
        )
    return decode_text(content, "standard input")

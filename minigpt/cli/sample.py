"""`minigpt sample`."""

import itertools
import os
import select
import stat
import sys
from typing import Any

import click

from minigpt.cli.options import device_option, given, json_option, run_argument, settings, weights_option
from minigpt.cli.output import open_run, print_object, write
from minigpt.config import SamplingConfig
from minigpt.files import as_text

LONGEST_PROMPT = 2**20  # bytes


@click.command(short_help="Let a run write.")
@run_argument
@click.option("--prompt", help="the text to continue; '-' reads it from standard input, as does a pipe [none]")
@click.option("--num-samples", type=click.IntRange(min=1), default=1, help="how many texts to write [1]")
@settings(SamplingConfig)
@weights_option
@device_option
@json_option
def sample(
    run: str | None, prompt: str | None, num_samples: int, weights: str, device: str, as_json: bool, **fields: Any
) -> None:
    """Let a run write: RUN is its folder, or leave it out for the newest one in runs/.

    The text appears as it is written. Without a prompt the model starts from a newline.
    """
    if fields["seed"] is None:
        fields["seed"] = int.from_bytes(os.urandom(4), "big")  # known, so that the text can be had again
    sampling = vars(SamplingConfig(**given(fields)))
    opened = open_run(run, weights, device)
    if prompt is None or prompt == "-":
        prompt = piped_text(wait=prompt == "-")
    if as_json:
        samples = opened.generate_several(num_samples, prompt, **sampling)
        print_object({"run": str(opened.path), "prompt": prompt, "samples": samples, **sampling})
    elif num_samples == 1:
        pieces = opened.stream(prompt, **sampling)
        write(itertools.chain([prompt], pieces, ["\n"]))
    else:
        for number, text in enumerate(opened.generate_several(num_samples, prompt, **sampling), 1):
            write([f"--- {number} ---\n", text, "\n"])


def piped_text(wait: bool) -> str:
    """What standard input holds, if it is a file or a pipe; without `wait`, only a pipe that already has something.

    A program that was started with an idle pipe as its input must not wait for it for ever. Raises
    FileError for what is not text.
    """
    if sys.stdin is None:
        return ""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    piped = stat.S_ISFIFO(mode) and os.name == "posix" and bool(select.select([sys.stdin], [], [], 0)[0])
    if not (wait or piped or stat.S_ISREG(mode)):
        return ""
    return as_text(sys.stdin.buffer.read(LONGEST_PROMPT), "standard input")

"""`minigpt sample`."""

import itertools
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.options import (
    GroupedCommand,
    adapter_options,
    device_option,
    json_option,
    run_argument,
    settings_options,
    weights_option,
)
from minigpt.cli.output import open_run, print_json, print_line, print_pieces
from minigpt.cli.standard_input import read_standard_input
from minigpt.config import SamplingConfig
from minigpt.config_fields import drop_unset
from minigpt.errors import ConfigError, DataError
from minigpt.system.standard_streams import can_read_within
from minigpt.system.text_encoding import drop_byte_order_mark

if TYPE_CHECKING:
    from minigpt.runs.run import Run

MAX_PROMPT = 2**20  # bytes
PIPE_WAIT = 0.5  # seconds until an idle pipe counts as empty


@click.command(cls=GroupedCommand, short_help="Generate text.")
@run_argument
@click.option("--prompt", help="the text to continue; '-', or a pipe, reads it from standard input [none]")
@click.option(
    "--ask",
    multiple=True,
    metavar="QUESTION",
    help="a question for a model that learned instructions; repeated, another line of it, such as an example's input",
)
@click.option("--num-samples", type=int, default=1, help="number of texts, written together [1]")
@weights_option
@device_option
@adapter_options
@json_option
@settings_options("Sampling", SamplingConfig)
def sample(
    run: str | None,
    prompt: str | None,
    ask: tuple[str, ...],
    num_samples: int,
    weights: str,
    device: str,
    adapters: tuple[str, ...],
    adapter_scale: float,
    as_json: bool,
    **fields: Any,
) -> None:
    """Generate text with a trained model.

    RUN is the run's folder [the newest in runs/]. A single text appears while it is written; several appear at the
    end. Without a prompt the model starts from a newline.
    """
    if fields["seed"] is None:
        # --json prints the seed, so that the text can be repeated
        fields["seed"] = int.from_bytes(os.urandom(4), "big")
    sampling = vars(SamplingConfig(**drop_unset(fields)))  # refuses a wrong value before PyTorch is imported
    if ask and prompt is not None:
        raise ConfigError("--ask and --prompt cannot be combined: --prompt continues a text, and --ask asks a question")
    loaded_run = open_run(run, weights, device, adapters, adapter_scale)
    if ask:
        _print_answers(loaded_run, "\n".join(ask), num_samples, sampling, as_json)
        return
    if prompt is None:
        prompt = _read_prompt()
    elif prompt == "-":
        prompt = read_standard_input(MAX_PROMPT)
    prompt = drop_byte_order_mark(prompt, "the prompt")
    if as_json:
        samples = loaded_run.generate_several(num_samples, prompt, **sampling)
        print_json({"run": str(loaded_run.path), "prompt": prompt, "samples": samples, **sampling})
    elif num_samples == 1:
        pieces = loaded_run.stream(prompt, **sampling)
        first = next(pieces, "")  # what is said while the loops compile comes before the text, and not within it
        print_pieces(itertools.chain([prompt, first], pieces, ["\n"]))
    else:
        for number, text in enumerate(loaded_run.generate_several(num_samples, prompt, **sampling), 1):
            print_line(f"--- {number} ---\n{text}")


def _print_answers(run: "Run", question: str, num_samples: int, sampling: dict[str, Any], as_json: bool) -> None:
    """Ask a question as often as there shall be answers, each with another seed, and print the answers."""
    if num_samples < 1:
        raise ConfigError(f"num_samples must be a whole number at least 1, not {num_samples}")
    chats = [run.chat(**sampling | {"seed": sampling["seed"] + n}) for n in range(num_samples)]
    if not chats[0].is_instruction_tuned:
        raise DataError(f"{str(run.path)!r} has learned no instructions: continue a text with --prompt")
    answers = [chat.ask(question) for chat in chats]
    if as_json:
        print_json({"run": str(run.path), "question": question, "samples": answers, **sampling})
        return
    for number, answer in enumerate(answers, 1):
        print_line(answer if num_samples == 1 else f"--- {number} ---\n{answer}")


def _read_prompt() -> str:
    """Return the text of standard input if it is a file or a pipe.

    A program may start this one with an idle pipe, for which it must not wait forever. So a pipe is read only if
    something arrives soon.

    Raises:
        FileError: the input is too long, or not text.
    """
    if sys.stdin is None:
        return ""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if stat.S_ISFIFO(mode):
        if can_read_within(sys.stdin, PIPE_WAIT):
            return read_standard_input(MAX_PROMPT)
        click.echo("the pipe is empty, so there is no prompt; --prompt - waits for one", err=True)
    return read_standard_input(MAX_PROMPT) if stat.S_ISREG(mode) else ""

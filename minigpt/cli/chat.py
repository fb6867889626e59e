"""`minigpt chat`."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.options import adapter_options, device_option, weights_option
from minigpt.cli.output import open_run, print_message, print_pieces
from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError, DataError, FileError

if TYPE_CHECKING:
    from minigpt.runs.chat import Chat

HELP = "/reset begins anew, /temperature N changes how daring it is, /save FILE keeps the conversation, /quit ends"


@click.command(short_help="Talk with a model.")
@click.argument("run", required=False)
@click.option("--temperature", type=float, default=0.7, help="below 1 plays safe; 0 takes the likeliest [0.7]")
@click.option("--max-new-tokens", type=int, default=500, help="tokens of an answer at most [500]")
@click.option("--seed", type=int, help="seed, to get the same answers again")
@weights_option
@device_option
@adapter_options
def chat(
    run: str | None,
    temperature: float,
    max_new_tokens: int,
    seed: int | None,
    weights: str,
    device: str,
    adapters: tuple[str, ...],
    adapter_scale: float,
) -> None:
    """Talk with a model that has learned instructions; any other goes on with what you write.

    RUN is the folder of its run, or leave it out for the newest one in runs/. /reset, /temperature N, /save FILE and
    /quit are commands; Ctrl-D ends too.
    """
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    opened = open_run(run, weights, device, adapters, adapter_scale)
    from minigpt.runs.chat import Chat

    talk = Chat(opened, config)
    if not talk.knows_instructions:
        click.echo("this model has learned no instructions: it goes on with what you write", err=True)
    elif talk.exchanges == 1:
        click.echo("this model has learned one question at a time: it answers each on its own", err=True)
    click.echo(HELP, err=True)
    for line in lines():
        try:
            if line.startswith("/"):
                if not obeyed(talk, line):
                    return
            elif line.strip():
                print_pieces(talk.answer(line))
                print(flush=True)
        except (ConfigError, DataError, FileError) as error:  # a slip of the pen: the talk goes on
            print_message(f"minigpt: {error}")


def lines() -> Iterator[str]:
    """What is typed, or comes through a pipe, a line at a time."""
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


def obeyed(talk: "Chat", line: str) -> bool:
    """Do what a command says; whether the talk goes on. Raises ConfigError for one that isn't there."""
    command, _, argument = line.partition(" ")
    if command == "/quit":
        return False
    if command == "/reset":
        talk.reset()
    elif command == "/temperature":
        talk.set_temperature(argument)
    elif command == "/save":
        if not argument.strip():
            raise ConfigError("/save needs the name of a file: /save talk.jsonl")
        talk.save(Path(argument.strip()))
    else:
        raise ConfigError(f"there is no command {command!r}: {HELP}")
    return True

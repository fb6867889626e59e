"""`minigpt chat`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from minigpt.cli.options import adapter_options, device_option, json_option, weights_option
from minigpt.cli.output import open_run, print_json, print_message, print_pieces
from minigpt.cli.standard_input import decode_line, get_standard_input, iterate_lines
from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError, DataError, FileError

if TYPE_CHECKING:
    from minigpt.runs.chat import Chat

HELP = (
    "/reset starts again, /temperature N sets the temperature, /save FILE saves the conversation, /quit ends; "
    "a question goes on in the next line after \\"
)


@click.command(short_help="Chat with a model.")
@click.argument("run", required=False)
@click.option("--temperature", type=float, default=0.7, help="below 1 is safer; 0 takes the most likely token [0.7]")
@click.option("--max-new-tokens", type=int, default=500, help="largest number of tokens of an answer [500]")
@click.option("--seed", type=int, help="seed: the same one gives the same answers")
@weights_option
@device_option
@adapter_options
@json_option
def chat(
    run: str | None,
    temperature: float,
    max_new_tokens: int,
    seed: int | None,
    weights: str,
    device: str,
    adapters: tuple[str, ...],
    adapter_scale: float,
    as_json: bool,
) -> None:
    """Chat with a model that was trained on instructions. Any other model continues your text.

    RUN is the run's folder [the newest in runs/]. In the chat, /reset starts again, /temperature N sets the
    temperature, /save FILE saves the conversation, and /quit or Ctrl-D ends. A question goes on in the next line where
    a line ends with a backslash.
    """
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    standard_input = get_standard_input()
    loaded_run = open_run(run, weights, device, adapters, adapter_scale)
    from minigpt.runs.chat import Chat

    conversation = Chat(loaded_run, config)
    if not conversation.is_instruction_tuned:
        click.echo("this model was not trained on instructions: it continues your text", err=True)
    elif conversation.exchanges == 1:
        click.echo("this model was trained on single questions: it answers each without the earlier ones", err=True)
    click.echo(HELP, err=True)
    _answer_lines(conversation, standard_input, as_json)
    if as_json:
        turns = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
        print_json({"run": str(loaded_run.path), "messages": turns})


def _answer_lines(conversation: "Chat", standard_input: BinaryIO, as_json: bool) -> None:
    """Read questions and commands, and print the answers unless they are printed as JSON at the end."""
    unfinished = ""  # the lines of a question that goes on
    for content in iterate_lines(standard_input):
        try:
            line = unfinished + decode_line(content)
            unfinished = ""
            if line.endswith("\\"):
                unfinished = line[:-1] + "\n"
            elif line.startswith("/"):
                if not _run_chat_command(conversation, line):
                    break
            elif line.strip():
                pieces = conversation.answer(line)
                if as_json:
                    list(pieces)
                else:
                    print_pieces(pieces)
                    print(flush=True)
        except (ConfigError, DataError, FileError) as error:  # a mistake of the user: the chat continues
            print_message(f"minigpt: {error}")


def _run_chat_command(conversation: "Chat", line: str) -> bool:
    """Run a command of the chat. Return False if it ends the chat."""
    command, _, argument = line.partition(" ")
    if command == "/quit":
        return False
    if command == "/reset":
        conversation.reset()
    elif command == "/temperature":
        conversation.set_temperature(argument)
    elif command == "/save":
        if not argument.strip():
            raise ConfigError("/save needs the name of a file: /save chat.jsonl")
        path = Path(argument.strip())
        saved = conversation.save(path)
        print_message(f"{path} has {saved} of {len(conversation.turns) // 2} questions, with their answers")
    else:
        raise ConfigError(f"there is no command {command!r}: {HELP}")
    return True

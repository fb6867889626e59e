"""`minigpt`: the commands, and what every one of them does about errors and signals.

Status: 0 done, 1 the work failed, 2 the user's input, 130 Ctrl-C, 143 SIGTERM. Results go to
standard output, progress and messages to standard error.
"""

import io
import logging
import os
import signal
import sys
import warnings

import click

from minigpt.cli.chat import chat
from minigpt.cli.data import data
from minigpt.cli.evaluate import evaluate
from minigpt.cli.finetune import finetune
from minigpt.cli.import_ import import_
from minigpt.cli.info import info
from minigpt.cli.ladder import ladder
from minigpt.cli.look import look
from minigpt.cli.plan import plan
from minigpt.cli.quantize import quantize
from minigpt.cli.sample import sample
from minigpt.cli.tokenizer import tokenizer
from minigpt.cli.torchrun import rank, world_size
from minigpt.cli.train import train
from minigpt.errors import ConfigError, MinigptError
from minigpt.system.files import silence_stream
from minigpt.system.terminal import escape_control_characters
from minigpt.version import __version__

LONGEST = 2000  # characters of a message
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(click.Group):
    """A group that lists its commands in the order they are used, not of the alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The names of the commands."""
        return list(self.commands)


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="minigpt")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train a small GPT on your own text, and let it write.

    \b
        minigpt train                      on Tiny Shakespeare
        minigpt train --data my.txt        on your text
        minigpt sample                     let the newest run write
    """  # noqa: D301 (the backslash is click's mark for lines that it must not wrap)
    if world_size() > 1 and context.invoked_subcommand != "train":
        error = ConfigError(f"minigpt {context.invoked_subcommand} works in one process: start it without torchrun")
        error.silent = rank() > 0
        raise error


COMMANDS = (train, sample, info, evaluate, look, ladder, tokenizer, data, finetune, chat, quantize, import_, plan)
for command in COMMANDS:
    cli.add_command(command)


def run(arguments: list[str]) -> int:
    """Run one command; its exit status. What went wrong is said in a sentence on standard error."""
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # None where the caller closed it
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character gets its number
    warnings.formatwarning = lambda message, *place: f"minigpt: {escape_control_characters(str(message))}\n"
    logging.basicConfig(format="minigpt: %(message)s", stream=sys.stderr)
    logging.getLogger("minigpt").setLevel(logging.INFO)
    try:
        with cli.make_context("minigpt", list(arguments), obj=list(arguments)) as context:
            cli.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:  # --help and --version
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except MinigptError as error:
        return error.exit_status if error.silent else complain(str(error), error.exit_status)
    except OSError as error:
        silence_stream(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has had enough
            return 0
        return complain(f"{error.filename or 'standard output'}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, click.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return 130 if rank() else complain("stopped", 130)


def complain(message: str, status: int) -> int:
    """Say what went wrong, and in which process if there are several; the status."""
    where = f"rank {rank()}: " if rank() else ""
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"  # with a stranger's names in it
    print(f"minigpt: {where}{escape_control_characters(message, keep='')}", file=sys.stderr)
    return status

"""`minigpt`: its commands, and how all of them handle errors and signals.

Exit status: 0 done, 1 the work failed, 2 the user's input, 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM. Results go to standard
output, progress and messages to standard error.
"""

import logging
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

import click

from minigpt.cli.chat import chat
from minigpt.cli.data import data
from minigpt.cli.evaluate import evaluate
from minigpt.cli.export import export
from minigpt.cli.finetune import finetune
from minigpt.cli.import_ import import_
from minigpt.cli.info import info
from minigpt.cli.ladder import ladder
from minigpt.cli.learn import learn
from minigpt.cli.look import look
from minigpt.cli.plan import plan
from minigpt.cli.quantize import quantize
from minigpt.cli.runs import runs
from minigpt.cli.sample import sample
from minigpt.cli.selfcheck import selfcheck
from minigpt.cli.serve import serve
from minigpt.cli.tokenizer import tokenizer
from minigpt.cli.torchrun import get_rank, get_world_size
from minigpt.cli.train import train
from minigpt.cli.usage_hints import describe_usage_error
from minigpt.errors import ConfigError, MinigptError
from minigpt.system.advice import advise_commands
from minigpt.system.files import silence_stream
from minigpt.system.standard_streams import prepare_output_streams
from minigpt.system.terminal import escape_control_characters, fit_to_terminal
from minigpt.system.thread_waiting import avoid_spinning_when_busy
from minigpt.version import __version__

MAX_MESSAGE = 2000  # characters
COMPLETION = "_MINIGPT_COMPLETE"  # click's name for the variable
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


SECTIONS = {
    "Train": (train, plan, data, tokenizer),
    "Write": (sample, chat),
    "Look inside": (runs, info, evaluate, look, ladder),
    "Fine-tune and shrink": (finetune, quantize),
    "Share": (serve, export, import_),
    "Learn": (learn,),
    "This machine": (selfcheck,),
}


class _Commands(click.Group):
    """A group whose `--help` shows its commands in sections, by purpose."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the sections."""
        return list(self.commands)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a title for each section, and its commands below it."""
        width = max(len(name) for name in self.commands)  # the same in all sections, so that the texts are aligned
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{command.name:<{width}}", command.get_short_help_str()) for command in commands])


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, "-V", "--version", prog_name="minigpt")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train a small GPT on your own text, and generate text with it.

    \b
        minigpt train                      on Tiny Shakespeare
        minigpt train --data my.txt        on your text
        minigpt sample                     generate text with the newest run
    """  # noqa: D301 (the backslash is click's mark for lines that it must not wrap)
    if get_world_size() > 1 and context.invoked_subcommand != "train":
        error = ConfigError(f"minigpt {context.invoked_subcommand} runs in one process: start it without torchrun")
        error.silent = get_rank() > 0
        raise error


for commands in SECTIONS.values():
    for command in commands:
        cli.add_command(command)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status. An error is one sentence on standard error."""
    prepare_output_streams()
    warnings.formatwarning = lambda message, *place: _format_message(escape_control_characters(str(message)))
    logging.basicConfig(format="minigpt: %(message)s", stream=sys.stderr)
    logging.getLogger("minigpt").setLevel(logging.WARNING if get_rank() else logging.INFO)
    try:
        if instruction := os.environ.get(COMPLETION):  # the shell asks for the words that may come next
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "minigpt", COMPLETION, instruction)
        context = cli.make_context("minigpt", list(arguments), obj=list(arguments))
        with context, advise_commands(), avoid_spinning_when_busy():
            cli.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:  # --help and --version
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        return _print_error(describe_usage_error(error), error.exit_code)
    except MinigptError as error:
        return error.exit_status if error.silent else _print_error(str(error), error.exit_status)
    except OSError as error:
        operation = _name_failed_operation(error)
        silence_stream(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, closed the pipe
            return 0
        return _print_error(f"{operation}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, click.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return 130 if get_rank() else _print_error("stopped", 130)


def _name_failed_operation(error: OSError) -> str:
    """Say what the system refused: the file, standard output, or the function that asked for something else."""
    if error.filename is not None:
        return f"cannot use {str(error.filename)!r}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    if Path(place.filename).parent in (Path(__file__).parent, Path(click.__file__).parent):
        return "cannot write to standard output"  # in these modules only printing raises OSError
    return f"the system refused {place.name}() in {Path(place.filename).name}"


def _print_error(message: str, status: int) -> int:
    """Print an error, with the process if there are several, and return the exit status."""
    where = f"rank {get_rank()}: " if get_rank() else ""
    if len(message) > MAX_MESSAGE:  # it may contain names from an untrusted file
        message = f"{message[:MAX_MESSAGE]}…"
    print(_format_message(where + escape_control_characters(message, keep="")), end="", file=sys.stderr)
    return status


def _format_message(message: str) -> str:
    """Return a message with the program's name and a line end; on a terminal it breaks between words."""
    return fit_to_terminal(f"minigpt: {message}\n", sys.stderr)

"""`minigpt`: the commands, and what every one of them does about errors and signals.

Status: 0 done, 1 the work failed, 2 the user's input, 130 Ctrl-C, 143 SIGTERM. Results go to
standard output, progress and messages to standard error.
"""

import os
import signal
import sys

import click

import minigpt
from minigpt.cli.evaluate import evaluate
from minigpt.cli.info import info
from minigpt.cli.sample import sample
from minigpt.cli.train import train
from minigpt.errors import MinigptError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(minigpt.__version__, prog_name="minigpt")
def cli() -> None:
    """Train a small GPT on your own text, and let it write.

    \b
        minigpt train                      on Tiny Shakespeare
        minigpt train --data my.txt        on your text
        minigpt sample                     let the newest run write
    """  # noqa: D301 (the backslash is click's mark for lines that it must not wrap)


for command in (train, sample, info, evaluate):
    cli.add_command(command)


def run(arguments: list[str]) -> int:
    """Run one command; its exit status. What went wrong is said in a sentence on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = cli.main(arguments, prog_name="minigpt", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except MinigptError as error:
        return complain(str(error), error.exit_status)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return complain("stopped", 130)


def complain(message: str, status: int) -> int:
    """Say what went wrong; the status."""
    print(f"minigpt: {message}", file=sys.stderr)
    return status

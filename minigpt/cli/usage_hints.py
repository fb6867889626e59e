"""Which flag somebody meant who typed one of another program."""

import click

from minigpt.errors import OTHER_NAMES


def describe_usage_error(error: click.ClickException) -> str:
    """Return the message of a wrong command line, with the flag that was probably meant."""
    command = error.ctx.command if isinstance(error, click.UsageError) and error.ctx else None
    flags = {flag: option for option in command.params for flag in option.opts} if command else {}
    if isinstance(error, click.NoSuchOption):
        name = error.option_name.removeprefix("--").replace("-", "_")
        meant = "--" + OTHER_NAMES.get(name, "").replace("_", "-")
        if meant in flags:
            return f"there is no option {error.option_name}: did you mean {meant}, {getattr(flags[meant], 'help', '')}?"
    message = error.format_message()
    if message.startswith("Got unexpected extra argument") and "--data" in flags:
        return f"{message.removeprefix('Got ')}: a text is named by --data, as in --data input.txt"
    return message

"""Which flag somebody meant who typed one of another program."""

import click

OTHER_NAMES = {  # a flag of other programs, and ours
    "--lr": "--learning-rate",
    "--epochs": "--max-iters",
    "--iters": "--max-iters",
    "--steps": "--max-iters",
    "--max-steps": "--max-iters",
    "--batch": "--batch-size",
    "--context": "--block-size",
    "--ctx": "--block-size",
    "--seq-len": "--block-size",
    "--layers": "--n-layer",
    "--heads": "--n-head",
    "--dim": "--n-embd",
    "--hidden-size": "--n-embd",
    "--length": "--max-new-tokens",
    "--max-tokens": "--max-new-tokens",
    "--tokens": "--max-new-tokens",
    "--temp": "--temperature",
    "--text": "--data",
    "--input": "--data",
    "--file": "--data",
    "--output": "--out",
    "--force": "--overwrite",
}


def describe_usage_error(error: click.ClickException) -> str:
    """Return the message of a wrong command line, with the flag that was probably meant."""
    command = error.ctx.command if isinstance(error, click.UsageError) and error.ctx else None
    flags = {flag: option for option in command.params for flag in option.opts} if command else {}
    if isinstance(error, click.NoSuchOption):
        meant = OTHER_NAMES.get(error.option_name, "")
        if meant in flags:
            return f"there is no option {error.option_name}: did you mean {meant}, {getattr(flags[meant], 'help', '')}?"
    message = error.format_message()
    if message.startswith("Got unexpected extra argument") and "--data" in flags:
        return f"{message.removeprefix('Got ')}: a text is named by --data, as in --data input.txt"
    return message

"""Flags made from the configuration's dataclasses, so that each setting is written once."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from minigpt.config import Checked, choices_of, kind_of

Command = TypeVar("Command", bound=Callable[..., Any])
DERIVED = {"vocab_size"}  # follows from the text


def settings(*parts: type[Checked]) -> Callable[[Command], Command]:
    """Decorate a command with a flag for each setting of the dataclasses; one not given arrives as None."""

    def decorate(command: Command) -> Command:
        for f in reversed([f for part in parts for f in dataclasses.fields(part)]):  # type: ignore[arg-type]
            if f.name not in DERIVED:
                kind = click.Choice(choices_of(f)) if choices_of(f) else kind_of(f)
                default = "" if f.default is None else f" [{f.default}]"
                flag = "--" + f.name.replace("_", "-")
                command = click.option(flag, f.name, type=kind, help=f.metadata["help"] + default)(command)
        return command

    return decorate


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given on the command line."""
    return {name: value for name, value in values.items() if value is not None}


def run_argument(command: Command) -> Command:
    """The run a command works on: a folder, or none for the newest."""
    return click.argument("run", required=False)(command)


def weights_option(command: Command) -> Command:
    """`--weights last|best`."""
    about = "the last weights, or those of the best evaluation [last]"
    return click.option("--weights", type=click.Choice(["last", "best"]), default="last", help=about)(command)


def device_option(command: Command) -> Command:
    """`--device`."""
    kind = click.Choice(["auto", "cpu", "cuda", "mps"])
    return click.option("--device", type=kind, default="auto", help="where to compute [auto]")(command)


def json_option(command: Command) -> Command:
    """`--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="print one JSON object, for programs")(command)

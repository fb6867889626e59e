"""Flags made from the configuration's dataclasses, so that each setting is written once."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from minigpt.config import TrainingConfig
from minigpt.config_fields import ValidatedSettings, get_choices, get_value_type

Command = TypeVar("Command", bound=Callable[..., Any])
DERIVED = {"vocab_size", "quantization", "schedule_start", "schedule_end"}  # follow from the text, and other commands
DEVICES = get_choices(next(f for f in dataclasses.fields(TrainingConfig) if f.name == "device"))


class Option(click.Option):
    """A flag that `--help` shows under the title of its group."""

    def __init__(self, *names: Any, group: str = "Options", **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose `--help` shows its flags in groups, in the order in which they come."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def settings_options(
    group: str,
    part: type[ValidatedSettings],
    without: Collection[str] = (),
    shown: Mapping[str, str] | None = None,
    otherwise: str | None = None,
) -> Callable[[Command], Command]:
    """Decorate a command with a flag for each setting of the dataclass; one not given arrives as None.

    Help shows the dataclass's defaults, or those `shown`, or what holds `otherwise`.
    """

    def decorate(command: Command) -> Command:
        for f in reversed(dataclasses.fields(part)):  # type: ignore[arg-type]
            if f.name not in DERIVED and f.name not in without:
                kind = click.Choice(get_choices(f)) if get_choices(f) else get_value_type(f)
                usual = (shown or {}).get(f.name, otherwise or f.default)
                default = "" if usual is None else f" [{usual}]"
                flag, about = "--" + f.name.replace("_", "-"), f.metadata["help"] + default
                if kind is bool:
                    flag, about = f"{flag}/--no-{flag[2:]}", f.metadata["help"]
                option = click.option(flag, f.name, cls=Option, group=group, type=kind, default=None, help=about)
                command = option(command)
        return command

    return decorate


def drop_unset(values: dict[str, Any]) -> dict[str, Any]:
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
    about = "where to compute; auto takes a GPU if there is one [auto]"
    return click.option("--device", type=click.Choice(DEVICES), default="auto", help=about)(command)


def adapter_options(command: Command) -> Command:
    """`--adapter`, which may be repeated, and `--adapter-scale`."""
    about = "an adapter from minigpt finetune --lora or PEFT; several are added up, each times its scale [none]"
    command = click.option("--adapter", "adapters", multiple=True, metavar="FOLDER[:SCALE]", help=about)(command)
    return click.option("--adapter-scale", type=click.FloatRange(0, 2), default=1.0, help="how much they count [1]")(
        command
    )


def json_option(command: Command) -> Command:
    """`--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="print one JSON object, for programs")(command)

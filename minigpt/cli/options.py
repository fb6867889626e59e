"""Flags that several commands share, and flags made from the settings' dataclasses."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from minigpt.config import UNSETTABLE, DataPath, TrainingConfig
from minigpt.config_fields import ValidatedSettings, get_choices, get_value_type

NOT_FLAGS = {"vocab_size", *UNSETTABLE}  # a command that takes vocab_size adds the flag itself
TEXT_FORMAT = {"encoding", "newlines", "errors"}
Command = TypeVar("Command", bound=Callable[..., Any])
DEVICES = get_choices(next(f for f in dataclasses.fields(TrainingConfig) if f.name == "device"))


class Option(click.Option):
    """A flag that `--help` shows under the title of its group."""

    def __init__(self, *names: Any, group: str = "Options", **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose `--help` shows its flags in groups, in their order."""

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
    settings: type[ValidatedSettings],
    without: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
    other_defaults: str | None = None,
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command a flag for each setting. A flag that is not given is None.

    Args:
        group: the title of the flags in `--help`.
        settings: the dataclass.
        without: settings that get no flag.
        defaults: the defaults that `--help` shows, where they are not the dataclass's.
        other_defaults: what `--help` shows as the default of all other settings.
    """

    def decorate(command: Command) -> Command:
        for f in reversed(dataclasses.fields(settings)):  # type: ignore[arg-type]
            if f.name not in NOT_FLAGS and f.name not in without:
                default = (defaults or {}).get(f.name, other_defaults or f.default)
                command = _make_option(f, group, default)(command)
        return command

    return decorate


def _make_option(f: dataclasses.Field, group: str, default: Any) -> Callable[[Command], Command]:
    """Return the decorator of one setting's flag."""
    flag, about = "--" + f.name.replace("_", "-"), f.metadata["help"]
    kind = click.Choice(get_choices(f)) if get_choices(f) else get_value_type(f)
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    elif default is not None:
        about = f"{about} [{default}]"
    return click.option(flag, f.name, cls=Option, group=group, type=kind, default=None, help=about)


def data_option(about: str, metavar: str = "FILE|FOLDER") -> Callable[[Command], Command]:
    """Return the decorator that adds `--data`: a path, or a list of paths where it is repeated.

    Args:
        about: the help text.
        metavar: what it names.
    """
    return click.option(
        "--data", multiple=True, metavar=metavar, help=about, callback=lambda context, option, paths: _unpack(paths)
    )


def _unpack(paths: tuple[str, ...]) -> DataPath:
    """Return the only path, a list of several, or None."""
    return list(paths) if len(paths) > 1 else paths[0] if paths else None


def text_format_options(other_defaults: str | None = None) -> Callable[[Command], Command]:
    """Return the decorator that adds `--encoding`, `--newlines` and `--errors`; a flag that is not given is None.

    Args:
        other_defaults: what `--help` shows as their defaults, if not the settings' own.
    """
    others = {f.name for f in dataclasses.fields(TrainingConfig)} - TEXT_FORMAT
    return settings_options("Options", TrainingConfig, without=others, other_defaults=other_defaults)


def run_argument(command: Command) -> Command:
    """Add the argument RUN: a folder, or none for the newest run."""
    return click.argument("run", required=False)(command)


def weights_option(command: Command) -> Command:
    """Add `--weights last|best`."""
    about = "the last weights, or those of the best evaluation [last]"
    return click.option("--weights", type=click.Choice(["last", "best"]), default="last", help=about)(command)


def device_option(command: Command) -> Command:
    """Add `--device`."""
    about = "where to compute; auto takes a GPU if there is one [auto]"
    return click.option("--device", type=click.Choice(DEVICES), default="auto", help=about)(command)


def adapter_options(command: Command) -> Command:
    """Add `--adapter`, which may be repeated, and `--adapter-scale`."""
    about = "an adapter of minigpt finetune --lora, or of PEFT; several are added up, each times its scale [none]"
    command = click.option("--adapter", "adapters", multiple=True, metavar="FOLDER[:SCALE]", help=about)(command)
    about = "multiplies all adapters [1]"
    return click.option("--adapter-scale", type=click.FloatRange(0, 2), default=1.0, help=about)(command)


def json_option(command: Command) -> Command:
    """Add `--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="print one JSON object, for programs")(command)

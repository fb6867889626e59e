"""`minigpt train`."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.options import GroupedCommand, given, json_option, settings
from minigpt.cli.output import describe, loss_line, print_object, times, write
from minigpt.config import PRESETS, Config, ModelConfig, TrainingConfig
from minigpt.errors import ConfigError
from minigpt.files import read_text

if TYPE_CHECKING:
    from minigpt.run import Run

LARGEST_CONFIG = 2**20  # bytes
EPILOG = "\b\nPresets:\n" + "\n".join(f"  {name:<14} {preset.about}" for name, preset in PRESETS.items())


@click.command(cls=GroupedCommand, epilog=EPILOG, short_help="Train a model on a text.")
@click.option("--data", metavar="FILE", help="the text; else input.txt here, else Tiny Shakespeare")
@click.option("--preset", metavar="NAME", help=f"the settings to begin with: {', '.join(PRESETS)} [lecture]")
@click.option("--config", "config_file", metavar="FILE", help="a TOML file of settings, such as a run's own")
@click.option("--out", metavar="FOLDER", help="the run's folder; a name already taken gets a number [runs/PRESET]")
@click.option("--overwrite", is_flag=True, help="take the place of the run that has that name, once done")
@click.option("--forecast", "only_forecast", is_flag=True, help="say what it will take, and train nothing")
@json_option
@settings("Model", ModelConfig)
@settings("Training", TrainingConfig)
def train(
    data: str | None,
    preset: str | None,
    config_file: str | None,
    out: str | None,
    overwrite: bool,
    only_forecast: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Train a model on a text and leave it in a folder, its run.

    Flags overrule the TOML file, which overrules the preset. The defaults shown are the lecture
    preset's. Ctrl-C stops after the step, measures and saves; twice, at once.
    """
    config = read_config(config_file, preset).override(**given(fields))
    from minigpt.training.train import forecast, train

    if only_forecast:
        foreseen = forecast(config, data)
        if as_json:
            low, high = foreseen.loss or (None, None)
            memory = {"seconds": foreseen.seconds, "memory_bytes": foreseen.memory}
            print_object({**memory, "validation_loss_from": low, "validation_loss_to": high})
        else:
            print(foreseen)
        return
    run = train(config, data, out, overwrite)
    if as_json:
        print_object(describe(run))
    else:
        report(run)


def read_config(path: str | None, preset: str | None) -> Config:
    """The configuration before any flag."""
    if path is None:
        return Config.from_preset(preset or "lecture")
    try:
        return Config.from_toml(read_text(path, LARGEST_CONFIG), preset)
    except ConfigError as error:
        raise ConfigError(f"{path!r}: {error}") from None


def report(run: "Run") -> None:
    """What the model writes, how good it is, where it lies, and what to type next."""
    record = run.record
    click.echo("\nwhat the model writes now:\n", err=True)
    write(run.stream(max_new_tokens=500, seed=run.config.training.seed))
    loss = "" if record.validation_loss is None else loss_line("validation loss", record.validation_loss)
    print(f"\n\n{loss}; {record.step:,} steps, {times(record)}")
    path = shlex.quote(f"./{run.path}" if str(run.path).startswith("-") else str(run.path))
    print(f"the run is in {run.path}; next: {program()} sample {path}")


def program() -> str:
    """How this program was called, so that what it suggests can be typed as it stands."""
    if shutil.which("minigpt"):
        return "minigpt"
    called = Path(sys.argv[0])
    return "python -m minigpt" if called.name == "__main__.py" else os.path.relpath(called)

"""`minigpt train`."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from minigpt.cli.config_file import describe_presets, read_config
from minigpt.cli.options import GroupedCommand, Option, drop_unset, json_option, settings_options
from minigpt.cli.output import describe_run, format_loss, format_times, print_json, print_pieces
from minigpt.cli.torchrun import rank, started_by_torchrun, world_size
from minigpt.config import ModelConfig, TokenizerKind, TrainingConfig
from minigpt.errors import ConfigError
from minigpt.presets import PRESETS

if TYPE_CHECKING:
    from minigpt.runs.run import Run

KINDS = get_args(TokenizerKind)


@click.command(cls=GroupedCommand, epilog=describe_presets(PRESETS), short_help="Train a model on a text.")
@click.option("--data", metavar="FILE|FOLDER", help="the text, or prepared data [input.txt here, or Tiny Shakespeare]")
@click.option("--preset", metavar="NAME", help=f"the settings to begin with: {', '.join(PRESETS)} [lecture]")
@click.option("--config", "config_file", metavar="FILE", help="a TOML file of settings, such as a run's own")
@click.option("--out", metavar="FOLDER", help="the run's folder; a name already taken gets a number [runs/PRESET]")
@click.option("--resume", metavar="RUN", help="go on with a run that was stopped, or that is to have more --max-iters")
@click.option("--restart-schedule", is_flag=True, help="the steps still to come get the learning rate's schedule anew")
@click.option("--overwrite", is_flag=True, help="take the place of the run that has that name, once done")
@click.option("--forecast", "only_forecast", is_flag=True, help="say what it will take, and train nothing")
@json_option
@click.option(
    "--processes", cls=Option, group="Processes", type=click.IntRange(1), help="how many train it together here [1]"
)
@click.option(
    "--max-restarts",
    cls=Option,
    group="Processes",
    type=click.IntRange(0),
    help="how often, if one dies, all go on from the last save by themselves [0]",
)
@click.option(
    "--tokenizer",
    cls=Option,
    group="Model",
    metavar="KIND|FILE",
    help=f"what text is cut into: {', '.join(KINDS)}; or the file, or the run, of one that is there [char]",
)
@click.option(
    "--vocab-size", cls=Option, group="Model", type=int, help="how many tokens bpe or sentencepiece learn [1024]"
)
@settings_options("Model", ModelConfig)
@settings_options("Training", TrainingConfig, without={"tokenizer"})
def train(
    data: str | None,
    preset: str | None,
    config_file: str | None,
    out: str | None,
    resume: str | None,
    restart_schedule: bool,
    overwrite: bool,
    only_forecast: bool,
    as_json: bool,
    processes: int | None,
    max_restarts: int | None,
    tokenizer: str | None,
    **fields: Any,
) -> None:
    """Train a model on a text and leave it in a folder, its run.

    Flags overrule the TOML file, which overrules the preset. The defaults shown are the lecture
    preset's. Ctrl-C stops after the step, measures and saves; twice, at once.
    """
    if started_by_torchrun() and processes not in (None, world_size()):
        raise ConfigError(
            f"torchrun started {world_size()} processes, so --processes cannot be {processes}: leave it out"
        )
    begin = (processes or max_restarts is not None) and not started_by_torchrun()
    if resume is not None:
        require_nothing_else()
        if begin:
            start(processes, max_restarts)
        go_on(resume, data, restart_schedule, {"tokenizer": tokenizer, **fields}, as_json)
        return
    if restart_schedule:
        raise ConfigError("--restart-schedule is for --resume: name a run to go on with, or leave it out")
    config = read_config(config_file, preset)
    file = None if tokenizer is None or tokenizer in KINDS else tokenizer
    kind = (tokenizer if file is None else None) or config.training.tokenizer
    if fields["vocab_size"] is not None and (file or kind not in ("bpe", "sentencepiece")):
        raise ConfigError("vocab_size is only for --tokenizer bpe or sentencepiece, which are learned: leave it out")
    config = config.override(**drop_unset({"tokenizer": kind, **fields}))
    if begin and not only_forecast:
        start(processes, max_restarts)
    from minigpt.training.train import forecast, train

    if only_forecast:
        foreseen = forecast(config, data, file)
        if as_json:
            low, high = foreseen.loss or (None, None)
            memory = {"seconds": foreseen.seconds, "memory_bytes": foreseen.memory}
            print_json({**memory, "validation_loss_from": low, "validation_loss_to": high})
        else:
            print(foreseen)
        return
    finish(train(config, data, out, overwrite, file), as_json)


def start(processes: int | None, max_restarts: int | None) -> None:
    """Do what this command was told to in several processes, and end as they do."""
    from minigpt.distributed.launch import launch

    context = click.get_current_context()
    context.exit(launch(context.find_root().obj, processes or 1, max_restarts or 0))


def require_nothing_else() -> None:
    """Raise ConfigError for a flag that says what a run that goes on has already."""
    context = click.get_current_context()
    for name in ("preset", "config_file", "out", "overwrite", "only_forecast"):
        if context.params[name]:
            flag = {"config_file": "config", "only_forecast": "forecast"}.get(name, name)
            raise ConfigError(f"--{flag} cannot go with --resume, which has the run's own: leave it out")


def go_on(path: str, data: str | None, restart_schedule: bool, fields: dict[str, Any], as_json: bool) -> None:
    """Go on with a run, and report."""
    from minigpt.training.resume import resume

    finish(resume(path, data, restart_schedule, **drop_unset(fields)), as_json)


def finish(run: "Run", as_json: bool) -> None:
    """Say what has become of it; of several processes the first does."""
    if rank():
        return
    if as_json:
        print_json(describe_run(run))
    else:
        report(run)


def report(run: "Run") -> None:
    """What the model writes, how good it is, where it lies, and what to type next."""
    record = run.record
    click.echo("\nwhat the model writes now:\n", err=True)
    print_pieces(run.stream(max_new_tokens=500, seed=run.config.training.seed))
    loss = record.validation_loss
    shown = "" if loss is None else format_loss("validation loss", loss, run.config, record)
    print(f"\n\n{shown}; {record.step:,} steps, {format_times(record)}")
    path = shlex.quote(f"./{run.path}" if str(run.path).startswith("-") else str(run.path))
    print_pieces([f"the run is in {run.path}; next: {program()} sample {path}\n"])


def program() -> str:
    """How this program was called, so that what it suggests can be typed as it stands."""
    if shutil.which("minigpt"):
        return "minigpt"
    called = Path(sys.argv[0])
    return "python -m minigpt" if called.name == "__main__.py" else os.path.relpath(called)

"""`minigpt train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from minigpt.cli.config_file import describe_presets, read_config
from minigpt.cli.options import GroupedCommand, Option, data_option, json_option, settings_options
from minigpt.cli.output import (
    describe_run,
    format_loss,
    format_times,
    print_finished,
    print_json,
    print_next_command,
    print_pieces,
)
from minigpt.cli.torchrun import get_rank, get_world_size, is_started_by_torchrun
from minigpt.config import Config, DataPath, ModelConfig, TokenizerKind, TrainingConfig
from minigpt.config_fields import drop_unset
from minigpt.errors import ConfigError
from minigpt.presets import PRESETS

if TYPE_CHECKING:
    from minigpt.runs.run import Run

KINDS = get_args(TokenizerKind)


@click.command(cls=GroupedCommand, epilog=describe_presets(PRESETS), short_help="Train a model on a text.")
@data_option("the text, perhaps in several files, or prepared data [input.txt here, or Tiny Shakespeare]")
@click.option("--preset", metavar="NAME", help=f"the settings to start from: {', '.join(PRESETS)} [lecture]")
@click.option("--config", "config_file", metavar="FILE", help="a TOML file of settings, such as a run's own")
@click.option("--out", metavar="FOLDER", help="the run's folder; a name already taken gets a number [runs/PRESET]")
@click.option("--resume", metavar="RUN", help="continue a run that was stopped, or train it longer with --max-iters")
@click.option("--restart-schedule", is_flag=True, help="restart the learning rate's schedule for the remaining steps")
@click.option("--overwrite", is_flag=True, help="replace the run of the same name, at the end")
@click.option("--forecast", "only_forecast", is_flag=True, help="estimate time, memory and loss, and do not train")
@json_option
@click.option(
    "--processes", cls=Option, group="Processes", type=click.IntRange(1), help="number of processes on this machine [1]"
)
@click.option(
    "--max-restarts",
    cls=Option,
    group="Processes",
    type=click.IntRange(0),
    help="how often all processes restart from the last checkpoint if one dies [0]",
)
@click.option(
    "--tokenizer",
    cls=Option,
    group="Model",
    metavar="KIND|FILE",
    help=f"kind of tokenizer: {', '.join(KINDS)}; or a tokenizer file, or a run whose tokenizer to use [char]",
)
@click.option(
    "--vocab-size", cls=Option, group="Model", type=int, help="number of tokens of bpe or sentencepiece [1024]"
)
@settings_options("Model", ModelConfig)
@settings_options("Training", TrainingConfig, without={"tokenizer"})
def train(
    data: DataPath,
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
    """Train a model on a text. The result is a folder, the run.

    Flags override the TOML file, and the file overrides the preset. The defaults shown are those of the lecture
    preset. Ctrl-C stops after the step, evaluates and saves; a second Ctrl-C stops at once.
    """
    if is_started_by_torchrun() and processes not in (None, get_world_size()):
        started = f"torchrun started {get_world_size()} processes"
        raise ConfigError(f"{started}, so --processes cannot be {processes}: leave it out")
    should_launch = (processes or max_restarts is not None) and not is_started_by_torchrun()
    if resume is not None:
        _refuse_flags_of_a_new_run()
        if should_launch:
            _launch_processes(processes, max_restarts)
        _resume_run(resume, data, restart_schedule, {"tokenizer": tokenizer, **fields}, as_json)
        return
    if restart_schedule:
        raise ConfigError("--restart-schedule is for --resume: name a run to continue, or leave it out")
    config, tokenizer_file = _apply_fields(read_config(config_file, preset), tokenizer, fields)
    if only_forecast:
        _print_forecast(config, data, tokenizer_file, as_json)
        return
    if should_launch:
        _launch_processes(processes, max_restarts)
    from minigpt.training.train import train

    _report(train(config, data, out, overwrite, tokenizer_file), as_json)


def _apply_fields(config: Config, tokenizer: str | None, fields: dict[str, Any]) -> tuple[Config, str | None]:
    """Return the configuration with the flags, and the tokenizer's file if --tokenizer names one."""
    file = None if tokenizer is None or tokenizer in KINDS else tokenizer
    kind = (tokenizer if file is None else None) or config.training.tokenizer
    if fields["vocab_size"] is not None and (file or kind not in ("bpe", "sentencepiece")):
        raise ConfigError("vocab_size is only for --tokenizer bpe or sentencepiece, which are trained: leave it out")
    return config.override(**drop_unset({"tokenizer": kind, **fields})), file


def _print_forecast(config: Config, data: DataPath, tokenizer_file: str | None, as_json: bool) -> None:
    """Estimate what the training takes, and print it."""
    from minigpt.training.train import forecast

    estimate = forecast(config, data, tokenizer_file)
    if as_json:
        low, high = estimate.loss or (None, None)
        costs = {"seconds": estimate.seconds, "memory_bytes": estimate.memory}
        print_json({**costs, "validation_loss_from": low, "validation_loss_to": high})
    else:
        print(estimate)


def _launch_processes(processes: int | None, max_restarts: int | None) -> None:
    """Run this command in several processes, and exit with their status."""
    from minigpt.distributed.launch import launch

    context = click.get_current_context()
    context.exit(launch(context.find_root().obj, processes or 1, max_restarts or 0))


def _refuse_flags_of_a_new_run() -> None:
    """Raise ConfigError for a flag that a resumed run cannot change."""
    context = click.get_current_context()
    for name in ("preset", "config_file", "out", "overwrite", "only_forecast"):
        if context.params[name]:
            flag = {"config_file": "config", "only_forecast": "forecast"}.get(name, name)
            raise ConfigError(f"--{flag} cannot go with --resume, which uses the run's own settings: leave it out")


def _resume_run(path: str, data: DataPath, restart_schedule: bool, fields: dict[str, Any], as_json: bool) -> None:
    """Continue a run, and report."""
    from minigpt.runs.run import Run
    from minigpt.runs.run_directory import RunDirectory
    from minigpt.training.resume import has_work_left, require_trained_here, resume

    changes, directory = drop_unset(fields), RunDirectory(Path(path))
    directory.require_exists()
    info = directory.read_info()
    require_trained_here(directory, info)
    if has_work_left(directory, info, changes, restart_schedule):
        _report(resume(path, data, restart_schedule, **changes), as_json)
    elif not get_rank():
        print_finished(Run.open(path), "train", as_json)


def _report(run: "Run", as_json: bool) -> None:
    """Print a sample of the model, its loss, the run's folder and what to type next, in the first process only."""
    if get_rank():
        return
    if as_json:
        print_json(describe_run(run))
        return
    info = run.info
    click.echo("\na sample of the model:\n", err=True)
    print_pieces(run.stream(max_new_tokens=500, seed=run.config.training.seed))
    loss = info.validation_loss
    exact = "" if loss is None else format_loss("validation loss", loss, run.config, info)
    print(f"\n\n{exact}; {info.step:,} steps, {format_times(info)}")
    print_next_command(run, "sample")

"""`minigpt info`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

import click

from minigpt.cli.options import json_option, run_argument
from minigpt.cli.output import describe_run, find_run, format_loss, format_times, print_json, print_line
from minigpt.system.terminal import escape_control_characters

if TYPE_CHECKING:
    from minigpt.runs.run import Run
    from minigpt.runs.run_overview import RunOverview


@click.command(short_help="Show a run's settings, parameters and losses.")
@run_argument
@json_option
def info(run: str | None, as_json: bool) -> None:
    """Show a run: its settings, its parameters by part, its losses.

    RUN is the run's folder [the newest in runs/].
    """
    from minigpt.runs.run_overview import RunOverview

    overview = RunOverview.read(find_run(run))
    if as_json:
        print_json(describe_run(overview))
    else:
        for name, value in list_facts(overview):
            print_line(f"{name:<12}{escape_control_characters(value, keep='')}", indent=12)


def list_facts(run: Union["Run", "RunOverview"]) -> list[tuple[str, str]]:
    """Return what to show about a run, as pairs of a name and a value."""
    from minigpt.runs.run_overview import count_parameters_by_part
    from minigpt.tokenizers.base import compute_fingerprint

    config, run_info = run.config, run.info
    used = (
        {"architecture", "block_size"}
        if config.model.architecture == "bigram"
        else {*vars(config.model)} - {"vocab_size"}
    )
    model = {name: value for name, value in vars(config.model).items() if name in used}
    lines = [
        ("run", f"{run.path}, {run_info.status}"),
        ("text", f"{run_info.data_source}: {run_info.data_characters:,} characters"),
        ("", f"SHA-256 {run_info.data_sha256}"),
        ("tokenizer", f"{config.training.tokenizer}, {config.model.vocab_size:,} different tokens"),
        ("", f"SHA-256 {compute_fingerprint(run.tokenizer)}"),
        ("preset", config.preset),
        *_list_settings("model", model),
        *_list_settings("training", {n: value for n, value in vars(config.training).items() if n != "tokenizer"}),
        ("parameters", f"{run_info.parameters:,}"),
    ]
    lines += [("", f"{count:>12,}  {part}") for part, count in count_parameters_by_part(run.path).items()]
    if run_info.validation_loss is not None:
        lines.append(("loss", format_loss("validation", run_info.validation_loss, config, run_info)))
    if run.best:
        last, best = run.metrics[-1], run.best
        estimates = f"training {last.train_loss:.4f}, validation {last.validation_loss:.4f} at step {last.step:,}"
        lines.append(("estimates", f"{estimates}; best {best.validation_loss:.4f} at step {best.step:,}"))
    where = f"on {run_info.device} with {run_info.threads} thread{'s' if run_info.threads != 1 else ''}"
    lines.append(("time", f"{format_times(run_info)}, {where}, started {run_info.started}"))
    versions = f"minigpt {run_info.minigpt_version}, torch {run_info.torch_version}, Python {run_info.python_version}"
    return [*lines, ("made with", f"{versions}, {run_info.platform}")]


def _list_settings(title: str, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return settings as the rows of a table, with a title before the first."""
    rows = [f"{name:<23} {value}" for name, value in settings.items()]
    return [(title if i == 0 else "", row) for i, row in enumerate(rows)]

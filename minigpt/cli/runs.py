"""`minigpt runs`."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.options import json_option
from minigpt.cli.output import print_json, print_line, print_message
from minigpt.errors import ConfigError
from minigpt.system.terminal import escape_control_characters

if TYPE_CHECKING:
    from minigpt.runs.run_listing import RunSummary

SORTS = ("date", "name", "preset", "loss", "size", "status")
HEADER = ("run", "started", "preset", "bits/byte", "size", "status")


@click.command(short_help="List the runs, and delete some.")
@click.argument("folder", default="runs")
@click.option("--sort", type=click.Choice(SORTS), default="date", help="the order; loss puts the best first [date]")
@click.option("--prune", is_flag=True, help="delete the checkpoints of finished runs; these cannot be trained further")
@click.option("--delete", "named", multiple=True, metavar="RUN", help="delete a run; may be repeated")
@click.option("--yes", is_flag=True, help="delete without a question")
@json_option
def runs(folder: str, sort: str, prune: bool, named: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """List the runs in FOLDER [runs]: start, preset, loss in bits per byte of text, size on disk and status."""
    from minigpt.runs.run_listing import list_runs

    if named:
        _delete([Path(path) for path in named], yes)
    if prune:
        _prune(Path(folder), yes)
    found = list_runs(Path(folder), sort)
    if as_json:
        content = [dataclasses.asdict(run) | {"path": str(run.path)} for run in found]
        print_json({"folder": folder, "runs": content})
        return
    if found:
        _print_table(found)
        print_line(f"{len(found)} run{'s' if len(found) > 1 else ''}, {format_bytes(sum(run.bytes for run in found))}")
    else:
        print_line(f"there is no run in {folder!r} yet: minigpt train makes one")
    for run in found:
        if run.error:
            print_message(run.error)


def format_bytes(count: int) -> str:
    """Return a size for people: "7 kB", "12.3 MB"."""
    if count < 1e6:
        return f"{count / 1e3:,.0f} kB"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def _print_table(found: "list[RunSummary]") -> None:
    """Print the runs in columns."""
    rows = [HEADER]
    for run in found:
        loss = "" if run.bits_per_byte is None else f"{run.bits_per_byte:.4f}"
        started = run.started[:16].replace("T", " ")
        rows.append((run.path.name, started, run.preset, loss, format_bytes(run.bytes), run.status))
    cells = [[escape_control_characters(cell, keep="") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, started, preset, loss, size, status in cells:
        left = [f"{cell:<{width}}" for cell, width in zip((name, started, preset), widths, strict=False)]
        print_line("  ".join([*left, f"{loss:>{widths[3]}}", f"{size:>{widths[4]}}", status]))


def _delete(paths: list[Path], yes: bool) -> None:
    """Delete runs after a question."""
    from minigpt.runs.run_listing import delete_run, measure_size, require_run

    for path in paths:
        require_run(path)
    size = format_bytes(sum(map(measure_size, paths)))
    _require_consent(f"delete {', '.join(map(str, paths))} ({size})?", yes)
    for path in paths:
        delete_run(path)
        print_message(f"deleted {path}")


def _prune(folder: Path, yes: bool) -> None:
    """Delete the checkpoints of the finished runs after a question."""
    from minigpt.runs.run_listing import list_runs, prune_run

    finished = [run.path for run in list_runs(folder) if run.status == "finished"]
    _require_consent(f"delete the checkpoints of {len(finished)} finished runs in {folder}?", yes)
    freed = sum(map(prune_run, finished))
    print_message(f"deleted checkpoints of {format_bytes(freed)}")


def _require_consent(question: str, yes: bool) -> None:
    """Ask on the terminal. Raise ConfigError where nobody can answer, and end the command if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can answer here: add --yes")
    click.confirm(escape_control_characters(question), abort=True, err=True)

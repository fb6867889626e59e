"""`minigpt look`."""

import sys
from pathlib import Path

import click

from minigpt.cli.options import data_option, device_option, json_option, run_argument, weights_option
from minigpt.cli.output import open_run, print_json, print_line
from minigpt.config import DataPath


@click.command(short_help="Look inside a run.")
@run_argument
@click.option("--text", help="the text to look at [the beginning of the validation text]")
@click.option("--only", multiple=True, metavar="VIEW", help="a view to make; may be repeated [all]")
@click.option(
    "--against", multiple=True, metavar="RUN", help="a run whose learning curves are drawn too; may be repeated"
)
@data_option("the run's training text, if it was moved; a text for an imported run")
@click.option("--out", metavar="FOLDER", help="the folder of the files [RUN/look]")
@weights_option
@device_option
@json_option
def look(
    run: str | None,
    text: str | None,
    only: tuple[str, ...],
    against: tuple[str, ...],
    data: DataPath,
    out: str | None,
    weights: str,
    device: str,
    as_json: bool,
) -> None:
    """Look inside a run: pictures and pages of what it has learned, each with a sentence that says what it shows.

    RUN is the run's folder [the newest in runs/]. The views: surprise, attention, heads, position, embedding,
    temperature, copied, curves, timeline.
    """
    loaded_run = open_run(run, weights, device)
    from minigpt.studies.look.views import look

    others = [open_run(path, device=device) for path in against]
    views = {}
    for view in look(loaded_run, Path(out) if out else None, text, only, others, data):
        views[view.name] = {"path": view.path and str(view.path), "says": view.summary, **view.figures}
        if as_json:
            continue
        if view.name == "surprise" and view.path and sys.stdout.isatty():
            _print_token_losses(view.figures["tokens"], view.figures["losses"])
        name, summary = (view.path.name, view.summary) if view.path else (view.name, f"left out: {view.summary}")
        print_line(f"{name:<18}{summary}")
    if as_json:
        print_json({"run": str(loaded_run.path), "views": views})
    else:
        print_line(f"the files are in {out or loaded_run.path / 'look'}")


def _print_token_losses(tokens: list[str], losses: list[float]) -> None:
    """Print the text on the terminal, colored by its loss."""
    from rich.console import Console

    from minigpt.studies.look.token_loss import color_by_loss

    Console(soft_wrap=True, highlight=False).print(color_by_loss(tokens, losses), end="\n\n")

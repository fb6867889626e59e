"""`minigpt look`."""

import sys
from pathlib import Path

import click

from minigpt.cli.options import device_option, json_option, run_argument, weights_option
from minigpt.cli.output import open_run, print_json, print_pieces


@click.command(short_help="Look inside a run.")
@run_argument
@click.option("--text", help="the text to look at [the beginning of the validation text]")
@click.option("--only", multiple=True, metavar="VIEW", help="one of the views; may be repeated [all of them]")
@click.option("--against", multiple=True, metavar="RUN", help="a run to draw in the same curves; may be repeated")
@click.option("--data", metavar="FILE|FOLDER", help="the run's training text, if it lies elsewhere now")
@click.option("--out", metavar="FOLDER", help="where the files go [RUN/look]")
@weights_option
@device_option
@json_option
def look(
    run: str | None,
    text: str | None,
    only: tuple[str, ...],
    against: tuple[str, ...],
    data: str | None,
    out: str | None,
    weights: str,
    device: str,
    as_json: bool,
) -> None:
    """Look inside a run: pictures and pages of what it has learned, each with a sentence of what it shows.

    RUN is its folder, or leave it out for the newest one in runs/. The views: surprise, attention, heads,
    position, embedding, temperature, copied, curves, timeline.
    """
    opened = open_run(run, weights, device)
    from minigpt.studies.look.views import look

    others = [open_run(path, device=device) for path in against]
    views = {}
    for seen in look(opened, Path(out) if out else None, text, only, others, data):
        views[seen.name] = {"path": seen.path and str(seen.path), "says": seen.says, **seen.figures}
        if as_json:
            continue
        if seen.name == "surprise" and seen.path and sys.stdout.isatty():
            show_surprise(seen.figures["tokens"], seen.figures["losses"])
        name, says = (seen.path.name, seen.says) if seen.path else (seen.name, f"left out: {seen.says}")
        print_pieces([f"{name:<18}{says}\n"])
    if as_json:
        print_json({"run": str(opened.path), "views": views})
    else:
        print_pieces([f"the files are in {out or opened.path / 'look'}\n"])


def show_surprise(tokens: list[str], losses: list[float]) -> None:
    """The text on the terminal, coloured by its loss."""
    from rich.console import Console

    from minigpt.studies.look.token_loss import color_by_loss

    Console(soft_wrap=True, highlight=False).print(color_by_loss(tokens, losses), end="\n\n")

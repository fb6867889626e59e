"""`minigpt eval`."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.options import (
    adapter_options,
    data_option,
    device_option,
    json_option,
    run_argument,
    text_format_options,
    weights_option,
)
from minigpt.cli.output import format_loss, open_run, print_json, print_line
from minigpt.config import DataPath
from minigpt.config_fields import drop_unset

if TYPE_CHECKING:
    from minigpt.data.text_format import TextFormat
    from minigpt.runs.exact_loss import ExactLoss
    from minigpt.runs.run import Run


@click.command("eval", short_help="Measure a run's exact loss.")
@run_argument
@data_option("another text, or prepared data [the run's own]")
@weights_option
@device_option
@adapter_options
@text_format_options("the run's")
@json_option
def evaluate(
    run: str | None,
    data: DataPath,
    weights: str,
    device: str,
    adapters: tuple[str, ...],
    adapter_scale: float,
    as_json: bool,
    **text_format: Any,
) -> None:
    """Measure a run's exact loss: the mean over every prediction of the text.

    RUN is the run's folder [the newest in runs/]. The run's own text is measured on its validation split, also if
    --data names it. Any other text is measured as a whole. Ctrl-C stops and prints the loss so far, of windows spread
    evenly over the text.
    """
    loaded_run = open_run(run, weights, device, adapters, adapter_scale)
    changed_format = _change_format(loaded_run, text_format)
    bar = _EvaluationBar(quiet=as_json)
    try:
        with bar:
            exact = loaded_run.evaluate(data, changed_format, on_progress=bar.update)
    except KeyboardInterrupt:
        if bar.latest:
            _print_loss(loaded_run, bar.latest, as_json)
        raise
    _print_loss(loaded_run, exact, as_json)


def _print_loss(loaded_run: "Run", exact: "ExactLoss", as_json: bool) -> None:
    """Print an exact loss."""
    from minigpt.model.loss_units import nats_to_perplexity

    if as_json:
        name = "validation_loss" if exact.split == "validation split" else "loss"
        print_json(
            {
                "run": str(loaded_run.path),
                "data": exact.source,
                "split": exact.split,
                "characters": exact.characters,
                "parameters": loaded_run.info.parameters,
                name: exact.loss,
                "bits_per_character": exact.bits_per_character,
                "bits_per_byte": exact.bits_per_byte,
                "perplexity": nats_to_perplexity(exact.loss),
                "predictions": exact.predictions,
                "possible_predictions": exact.possible_predictions,
            }
        )
    else:
        print_line(f"{exact.source}, {exact.split}: {exact.characters:,} characters")
        print_line(format_loss("loss", exact.loss, loaded_run.config, exact))


def _change_format(run: "Run", changes: dict[str, Any]) -> "TextFormat":
    """Return how the run reads texts, with the flags of the command line."""
    from minigpt.data.text_format import TextFormat

    return dataclasses.replace(TextFormat.from_settings(run.config.training), **drop_unset(changes))


class _EvaluationBar:
    """A progress bar on standard error, if that is a terminal.

    Attributes:
        latest: the exact loss so far; None before the first batch.
    """

    def __init__(self, quiet: bool) -> None:
        """Prepare the bar, which `quiet` hides."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from minigpt.system.console import PipeSafeConsole

        console = PipeSafeConsole(stderr=True, highlight=False)
        is_live = console.is_terminal and not console.is_dumb_terminal and not quiet
        columns = (BarColumn(bar_width=30), TextColumn("{task.description}"), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not is_live)
        self.task = self.bar.add_task("reading and encoding the text", total=None)
        self.latest: ExactLoss | None = None

    def __enter__(self) -> "_EvaluationBar":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def update(self, exact: "ExactLoss") -> None:
        """Show the exact loss so far."""
        self.latest = exact
        done, total = exact.predictions, exact.possible_predictions
        about = f"{done:,} of {total:,} predictions · loss {exact.loss:.4f}"
        self.bar.update(self.task, description=about, completed=done, total=total)

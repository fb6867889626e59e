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
    --data names it. Any other text is measured as a whole.
    """
    from minigpt.model.loss_units import nats_to_perplexity

    loaded_run = open_run(run, weights, device, adapters, adapter_scale)
    exact = loaded_run.evaluate(data, _change_format(loaded_run, text_format))
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

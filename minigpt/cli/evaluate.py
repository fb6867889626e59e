"""`minigpt eval`."""

import click

from minigpt.cli.options import adapter_options, device_option, json_option, run_argument, weights_option
from minigpt.cli.output import format_loss, open_run, print_json, print_line


@click.command("eval", short_help="Measure a run's exact loss.")
@run_argument
@click.option("--data", metavar="FILE|FOLDER", help="another text, or prepared data [the run's own]")
@weights_option
@device_option
@adapter_options
@json_option
def evaluate(
    run: str | None,
    data: str | None,
    weights: str,
    device: str,
    adapters: tuple[str, ...],
    adapter_scale: float,
    as_json: bool,
) -> None:
    """Measure a run's exact loss: the mean over every prediction of the text.

    RUN is the run's folder [the newest in runs/]. The run's own text is measured on its validation split, also if
    --data names it. Any other text is measured as a whole.
    """
    from minigpt.model.loss import nats_to_perplexity

    opened = open_run(run, weights, device, adapters, adapter_scale)
    measured = opened.evaluate(data)
    if as_json:
        name = "validation_loss" if measured.split == "validation split" else "loss"
        print_json(
            {
                "run": str(opened.path),
                "data": measured.source,
                "split": measured.split,
                "characters": measured.characters,
                "parameters": opened.record.parameters,
                name: measured.loss,
                "bits_per_character": measured.bits_per_character,
                "bits_per_byte": measured.bits_per_byte,
                "perplexity": nats_to_perplexity(measured.loss),
                "predictions": measured.predictions,
                "possible_predictions": measured.possible_predictions,
            }
        )
    else:
        print_line(f"{measured.source}, {measured.split}: {measured.characters:,} characters")
        print_line(format_loss("loss", measured.loss, opened.config, measured))

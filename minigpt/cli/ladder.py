"""`minigpt ladder`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.options import GroupedCommand, data_option, json_option, settings_options
from minigpt.cli.output import print_json, print_line, print_message
from minigpt.config import Config, DataPath, ModelConfig, TrainingConfig
from minigpt.config_fields import drop_unset

if TYPE_CHECKING:
    from minigpt.studies.ladder.directory import Ladder

QUICK = {"max_iters": 800}


@click.command(cls=GroupedCommand, short_help="Measure what each idea of the lecture is worth.")
@data_option("the text [input.txt here, or Tiny Shakespeare]", "FILE")
@click.option("--out", metavar="FOLDER", help="the ladder's folder; an interrupted ladder continues here [runs/ladder]")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, help="number of seeds to train each rung with [1]")
@click.option(
    "--quick", is_flag=True, help=f"{QUICK['max_iters']} steps for each rung; the folder is runs/ladder-quick"
)
@click.option("--full", is_flag=True, help="add a last rung, lecture-large: for a GPU")
@json_option
@settings_options(
    "Model", ModelConfig, without={"architecture", "implementation", "activation", "qkv_bias", "tied_head"}
)
@settings_options(
    "Training",
    TrainingConfig,
    without={
        *("eval_interval", "eval_windows", "snapshots", "checkpoint_activations", "compile", "parallel"),
        *("optimizer", "muon_learning_rate", "max_minutes"),
        *("tokenizer", "patience", "on_spike", "save_minutes", "log_to"),
    },
)
def ladder(data: DataPath, out: str | None, seeds: int, quick: bool, full: bool, as_json: bool, **fields: Any) -> None:
    """Measure what each idea of the lecture is worth, on one text and with one budget.

    The rungs go from a blind guess to the bigram and the transformer. Each is trained with the same batches, seed,
    optimizer and number of steps. N-gram models, and a blend of both, are measured for comparison. The folder has
    ladder.md, ladder.png and ladder.json. Ctrl-C stops; the same command continues.
    """
    config = Config().override(**({**QUICK, **drop_unset(fields)} if quick else drop_unset(fields)))
    from minigpt.studies.ladder.experiment import run_ladder
    from minigpt.studies.ladder.report import format_terminal_lines, summarize_ladder

    folder = Path(out or ("runs/ladder-quick" if quick else "runs/ladder"))
    printed = 0

    def print_new_lines(measured: "Ladder") -> None:
        nonlocal printed
        lines = format_terminal_lines(measured, seeds, full)
        for line in lines[printed:]:
            print_message(line) if as_json else print_line(line)
        printed = len(lines)

    try:
        ladder = run_ladder(config, data, folder, seeds, full, print_new_lines, print_message)
    except KeyboardInterrupt:
        click.echo("all measurements so far are saved: the same command continues from here", err=True)
        raise
    if as_json:
        print_json({"ladder": str(folder), **summarize_ladder(ladder)})
    else:
        print_line(f"\nthe ladder is in {folder}: ladder.md, ladder.png, ladder.json")

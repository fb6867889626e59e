"""The view `curves`: the learning curves of several runs in one figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.errors import DataError
from minigpt.runs.run import Run
from minigpt.system.plotting import create_figure, replace_undrawable, write_plain_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def get_unit(run: Run) -> str:
    """Return what a token of the run is: a character, or a token of several."""
    return "character" if run.config.training.tokenizer == "char" else "token"


def describe_ranking(runs: Sequence[Run]) -> str:
    """Return the best run in a sentence: by the bits per byte of the text, which do not depend on the tokenizer.

    Runs are compared only if they were trained on the same text, with the same split.
    """
    measured = [run for run in runs if run.info.validation_loss is not None]
    if not measured:
        return "no run has an exact loss yet"
    texts = {(run.info.data_sha256, run.config.training.train_fraction) for run in measured}
    if len(texts) > 1:
        return "the runs were trained on different texts, so their losses cannot be compared"
    if len({run.info.tokenizer_sha256 for run in measured}) == 1:
        best = min(measured, key=lambda run: run.info.validation_loss or 0.0)
        return f"lowest exact validation loss: {best.info.validation_loss:.4f} nats per {get_unit(best)}, {best.path}"
    if any(run.info.bits_per_byte is None for run in measured):
        return "the runs have different tokenizers and no bits per byte, so their losses cannot be compared"
    best = min(measured, key=lambda run: run.info.bits_per_byte or 0.0)
    return f"fewest bits per byte of the text: {best.info.bits_per_byte:.4f}, {best.path}"


def draw_curves(runs: Sequence[Run]) -> "Figure":
    """Draw each run's losses over the characters read: validation in full color, training faint.

    Raises:
        DataError: no run has two evaluations.
    """
    if all(len(run.metrics) < 2 for run in runs):
        raise DataError("a curve needs two evaluations: train longer, or with a smaller eval_interval")
    figure = create_figure(10, 6)
    axes = figure.subplots()
    for i, run in enumerate(runs):
        characters = [m.characters for m in run.metrics]
        loss = run.info.validation_loss
        exact = "" if loss is None else f": {loss:.4f}"
        label = replace_undrawable(f"{run.path.name}{exact}")
        axes.plot(characters, [m.validation_loss for m in run.metrics], color=f"C{i % 10}", linewidth=2.5, label=label)
        axes.plot(characters, [m.train_loss for m in run.metrics], color=f"C{i % 10}", alpha=0.4)
    axes.set_xlabel("characters read", size=13)
    write_plain_numbers(axes.xaxis)
    units = {get_unit(run) for run in runs}
    axes.set_ylabel(f"loss (nats per {units.pop() if len(units) == 1 else 'token of each run'})", size=13)
    axes.set_title("Learning curves: validation loss, and training loss (faint)", size=15)
    axes.grid(alpha=0.3)
    for text in axes.legend(fontsize=12, title="exact validation loss").get_texts():
        text.set_parse_math(False)
    return figure

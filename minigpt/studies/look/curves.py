"""The view `curves`: the learning curves of several runs in one figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.errors import DataError
from minigpt.runs.run import Run
from minigpt.system.plotting import create_figure, replace_undrawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        loss = run.record.validation_loss
        exact = "" if loss is None else f": {loss:.4f}"
        label = replace_undrawable(f"{run.path.name}{exact}")
        axes.plot(characters, [m.validation_loss for m in run.metrics], color=f"C{i % 10}", linewidth=2.5, label=label)
        axes.plot(characters, [m.train_loss for m in run.metrics], color=f"C{i % 10}", alpha=0.4)
    axes.set_xlabel("characters read", size=13)
    axes.set_ylabel("loss (nats per character)", size=13)
    axes.set_title("Learning curves: validation loss, and training loss (faint)", size=15)
    axes.grid(alpha=0.3)
    for text in axes.legend(fontsize=12, title="exact validation loss").get_texts():
        text.set_parse_math(False)
    return figure

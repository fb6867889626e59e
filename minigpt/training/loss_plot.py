"""loss.png: the learning curves, and below them some of the texts that the model wrote."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.runs.record import Snapshot
from minigpt.runs.run import Run
from minigpt.system.plotting import create_figure, cut_to_width, replace_undrawable, write_plain_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_TEXTS = 4
MAX_CHARACTERS = 96  # columns of each text


def draw_loss(run: Run, snapshots: Sequence[Snapshot], name: str) -> "Figure":
    """Draw the learning curves of a run.

    Args:
        run: the run.
        snapshots: texts that the model wrote; at most four of them are shown, evenly spaced.
        name: what the title calls the run.
    """
    indices = [round(i * (len(snapshots) - 1) / (MAX_TEXTS - 1)) for i in range(MAX_TEXTS)] if snapshots else []
    texts = [snapshots[i] for i in dict.fromkeys(indices)]
    figure = create_figure(8, 4.1 + 0.3 * len(texts))
    axes, below = figure.subplots(2, 1, height_ratios=[4, 0.1 + 0.3 * len(texts)])
    unit = "character" if run.config.training.tokenizer == "char" else "token"
    steps = [m.step for m in run.metrics]
    axes.plot(steps, [m.train_loss for m in run.metrics], label="training", color="#1f77b4")
    axes.plot(steps, [m.validation_loss for m in run.metrics], label="validation", color="#d62728")
    title = f"{replace_undrawable(name)}: {run.config.preset}, {run.record.parameters:,} parameters"
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="step", ylabel=f"loss (nats per {unit})")
    write_plain_numbers(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.legend()
    below.axis("off")
    for row, snapshot in enumerate(texts):
        y = 1 - (row + 0.5) / len(texts)
        style = {"transform": below.transAxes, "va": "center", "size": 8}
        below.text(0, y, f"step {snapshot.step:,}", weight="bold", **style)
        line = below.text(
            0.12, y, cut_to_width(replace_undrawable(snapshot.text), MAX_CHARACTERS), family="monospace", **style
        )
        line.set_parse_math(False)  # a dollar sign is a dollar sign
    return figure

"""loss.png: the learning curves, and below them some of the texts that the model wrote."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minigpt.runs.run import Run
from minigpt.runs.run_info import Snapshot
from minigpt.system.plotting import create_figure, cut_to_width, replace_undrawable, write_plain_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, CURVES, LINE = 8, 4.1, 0.3  # inches: of the figure, of the curves with their labels, of a text
MIN_EVALUATIONS = 3  # fewer points are no curve, and importing Matplotlib takes longer than a training of few steps
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
    below = LINE * len(texts)
    height = CURVES + below
    figure = create_figure(WIDTH, height, layout=None)  # computing the layout takes as long as drawing
    axes = figure.add_axes((0.09, (0.6 + below) / height, 0.88, (CURVES - 1) / height))
    unit = "character" if run.config.training.tokenizer == "char" else "token"
    steps = [m.step for m in run.metrics]
    axes.plot(steps, [m.train_loss for m in run.metrics], label="training", color="#1f77b4")
    axes.plot(steps, [m.validation_loss for m in run.metrics], label="validation", color="#d62728")
    title = f"{replace_undrawable(name)}: {run.config.preset}, {run.info.parameters:,} parameters"
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="step", ylabel=f"loss (nats per {unit})")
    write_plain_numbers(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.legend()
    for row, snapshot in enumerate(texts):
        style: dict[str, Any] = {"y": (below - LINE * row) / height, "va": "center", "size": 8}
        figure.text(0.03, s=f"step {snapshot.step:,}", weight="bold", **style)
        shown = cut_to_width(replace_undrawable(snapshot.text), MAX_CHARACTERS)
        line = figure.text(0.14, s=shown, family="monospace", **style)
        line.set_parse_math(False)  # $…$ in a text is not a formula
    return figure

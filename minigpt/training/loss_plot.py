"""loss.png: the learning curves, and below them what the model wrote on the way."""

from pathlib import Path

from minigpt.runs.run_directory import Metrics, RunFolder, Snapshot
from minigpt.system.plotting import create_figure, replace_undrawable, write_png

SHOWN = 4  # how many of the texts there is room for
LONGEST = 96  # characters of one


def draw_loss(run: Path, title: str, metrics: list[Metrics], snapshots: list[Snapshot], unit: str) -> None:
    """Write loss.png into the folder of a run whose tokens are called `unit`. Raises FileError."""
    shown = [snapshots[round(i * (len(snapshots) - 1) / (SHOWN - 1))] for i in range(SHOWN)] if snapshots else []
    shown = list(dict.fromkeys(shown))
    figure = create_figure(8, 4.1 + 0.3 * len(shown))
    axes, below = figure.subplots(2, 1, height_ratios=[4, 0.1 + 0.3 * len(shown)])
    steps = [m.step for m in metrics]
    axes.plot(steps, [m.train_loss for m in metrics], label="training", color="#1f77b4")
    axes.plot(steps, [m.validation_loss for m in metrics], label="validation", color="#d62728")
    axes.set(title=title, xlabel="step", ylabel=f"loss (nats per {unit})")
    axes.grid(alpha=0.3)
    axes.legend()
    below.axis("off")
    for row, snapshot in enumerate(shown):
        height = 1 - (row + 0.5) / len(shown)
        below.text(0, height, f"step {snapshot.step:,}", transform=below.transAxes, va="center", weight="bold", size=8)
        line = below.text(
            0.12, height, replace_undrawable(snapshot.text)[:LONGEST], transform=below.transAxes, va="center", size=8
        )
        line.set_family("monospace")
        line.set_parse_math(False)  # a dollar sign is a dollar sign
    write_png(RunFolder(run).figure, figure)

"""loss.png: the learning curves, and below them what the model wrote on the way."""

import io
import os
from pathlib import Path

from minigpt.files import write_atomic
from minigpt.folder import Metrics, RunFolder, Snapshot

SHOWN = 4  # how many of the texts there is room for


def draw_loss(run: Path, title: str, metrics: list[Metrics], snapshots: list[Snapshot]) -> None:
    """Write loss.png into the folder of a run. Raises FileError."""
    backend = os.environ.pop("MPLBACKEND", None)  # a picture in a file needs none, and a foreign one may be missing
    from matplotlib.figure import Figure

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
    shown = [snapshots[round(i * (len(snapshots) - 1) / (SHOWN - 1))] for i in range(SHOWN)] if snapshots else []
    shown = list(dict.fromkeys(shown))
    figure = Figure(figsize=(8, 4.1 + 0.3 * len(shown)), dpi=120, layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=[4, 0.1 + 0.3 * len(shown)])
    steps = [m.step for m in metrics]
    axes.plot(steps, [m.train_loss for m in metrics], label="training", color="#1f77b4")
    axes.plot(steps, [m.validation_loss for m in metrics], label="validation", color="#d62728")
    axes.set(title=title, xlabel="step", ylabel="loss (nats per character)")
    axes.grid(alpha=0.3)
    axes.legend()
    below.axis("off")
    for row, snapshot in enumerate(shown):
        height = 1 - (row + 0.5) / len(shown)
        below.text(0, height, f"step {snapshot.step:,}", transform=below.transAxes, va="center", weight="bold", size=8)
        line = below.text(0.12, height, drawable(snapshot.text), transform=below.transAxes, va="center", size=8)
        line.set_family("monospace")
        line.set_parse_math(False)  # a dollar sign is a dollar sign
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(RunFolder(run).figure, picture.getvalue())


def drawable(text: str) -> str:
    """The text on one line, of characters that the font has; a line break becomes ¶, any other a middle dot."""
    return "".join(c if c.isprintable() and ord(c) < 0x250 else "¶" if c == "\n" else "·" for c in text)

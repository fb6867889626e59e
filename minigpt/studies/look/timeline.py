"""The view `timeline`: what the model wrote at each snapshot, beside its loss."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.errors import DataError
from minigpt.runs.run_info import Snapshot
from minigpt.system.advice import format_setting
from minigpt.system.plotting import create_figure, cut_to_width, replace_undrawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT_BAR = 0.25  # a bar below this share of the longest one has its figure beside it
WIDTH = 72  # columns of a text that fit in the picture


def draw_timeline(snapshots: Sequence[Snapshot], title: str) -> "Figure":
    """Draw a row for each snapshot, the first at the top: step, loss as a bar, and what the model wrote.

    Raises:
        DataError: there is no snapshot.
    """
    if not snapshots:
        raise DataError(f"the run has no snapshots: train with {format_setting('snapshots', 12)}")
    rows = len(snapshots)
    figure = create_figure(12, 0.36 * rows + 1.2)
    bars, texts = figure.subplots(1, 2, sharey=True, width_ratios=[1, 3.4])
    losses = [s.validation_loss for s in snapshots]
    bars.barh(range(rows), losses, color="#4c9be8", height=0.72)
    longest = max(losses)
    for row, snapshot in enumerate(snapshots):
        loss = snapshot.validation_loss
        is_inside = loss > SHORT_BAR * longest
        place, color = (0.015 * longest, "white") if is_inside else (loss + 0.015 * longest, "black")
        bars.text(place, row, f"{loss:.2f}", va="center", size=11, weight="bold", color=color)
        line = cut_to_width(replace_undrawable(snapshot.text.strip("\n")), WIDTH)
        texts.text(0, row, line, va="center", size=13.5, family="monospace", parse_math=False)
    bars.set_yticks(range(rows), [f"{s.step:,}" for s in snapshots], size=11)
    bars.invert_yaxis()
    bars.set_xlim(0, longest * 1.02)
    bars.set_xticks([])
    bars.set_title("step, and validation loss", size=12, loc="left")
    texts.set_xlim(0, 1)
    texts.set_title("what the model writes then, from the same start and seed", size=12, loc="left")
    texts.axis("off")
    bars.spines[:].set_visible(False)
    bars.tick_params(length=0)
    figure.suptitle(replace_undrawable(title), size=15, parse_math=False)
    return figure

"""The learning curves of a run, for a notebook."""

from typing import TYPE_CHECKING

from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.loss_plot import draw_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_loss(run: Run) -> "Figure":
    """Draw a run's training and validation loss over its steps, and some of the texts that it wrote.

    Raises:
        RunError: the file of the texts is damaged.
    """
    return draw_loss(run, RunDirectory(run.path).read_snapshots(), run.path.name)

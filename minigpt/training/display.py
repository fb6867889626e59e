"""Print the table of evaluations and the progress bar of a training run, on standard error."""

import sys

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from minigpt.config import TrainingConfig
from minigpt.runs.run_info import Metrics
from minigpt.system.console import PipeSafeConsole
from minigpt.system.terminal import escape_control_characters
from minigpt.training.stopwatch import format_duration

HEADER = f"{'step':>7}  {'train':>7}  {'val':>7}  {'it/s':>7}  {'chars/s':>9}  {'left':>8}"


class Display:
    """A table that gets a row at each evaluation and, on a terminal, a progress bar below it.

    Where standard error is not a terminal, the table is the same in plain lines, without control codes.
    """

    def __init__(self, config: TrainingConfig, title: str = "", quiet: bool = False) -> None:
        """Prepare the table and the bar.

        Args:
            config: the settings of the training.
            title: text before the bar.
            quiet: whether to print nothing at all.
        """
        self.max_iters = config.max_iters
        in_notebook = "ipykernel" in sys.modules  # its streams claim to be terminals, but cannot move a cursor
        self.console = PipeSafeConsole(
            stderr=True,
            highlight=False,
            soft_wrap=True,
            quiet=quiet,
            force_jupyter=False,
            force_terminal=False if in_notebook else None,
        )
        live = self.console.is_terminal and not self.console.is_dumb_terminal and not quiet
        columns = (TextColumn(title), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        self.bar = Progress(
            *columns, console=self.console, transient=True, disable=not live, auto_refresh=live, refresh_per_second=4
        )
        self.task = self.bar.add_task("", total=config.max_iters, speed="")

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line of text."""
        self.console.say(text, style)

    def set_max_iters(self, max_iters: int) -> None:
        """Change the number of steps that the bar and the time left count on."""
        self.max_iters = max_iters
        self.bar.update(self.task, total=max_iters)

    def print_header(self) -> None:
        """Print the table's header."""
        self.say(HEADER, "bold")

    def start_bar(self, step: int = 0) -> None:
        """Start the bar at a step."""
        self.bar.update(self.task, completed=step)
        self.bar.start()

    def stop(self) -> None:
        """Remove the bar."""
        self.bar.stop()

    def update_bar(self, step: int, characters: float, training_seconds: float, seconds: float) -> None:
        """Move the bar.

        Args:
            step: steps done.
            characters: characters read in them.
            training_seconds: time spent on them.
            seconds: time since the start, evaluations included.
        """
        speed = f"{step / training_seconds:,.1f} it/s · {characters / training_seconds:,.0f} characters/s"
        left = format_duration(seconds / step * (self.max_iters - step))
        self.bar.update(self.task, completed=step, speed=f"{speed} · {left} left")

    def print_row(self, metrics: Metrics, seconds: float, is_best: bool) -> None:
        """Print a row of the table.

        Args:
            metrics: the evaluation.
            seconds: time since the start, evaluations included.
            is_best: whether no earlier evaluation was as good; other rows are yellow.
        """
        self.bar.update(self.task, completed=metrics.step)
        step = metrics.step
        row = f"{step:7,}  {metrics.train_loss:7.4f}  {metrics.validation_loss:7.4f}"
        if step:
            rates = f"{step / metrics.seconds:7,.1f}  {metrics.characters / metrics.seconds:9,.0f}"
            row += f"  {rates}  {format_duration(seconds / step * (self.max_iters - step)):>8}"
        self.say(row, "" if is_best else "yellow")

    def show_snapshot(self, text: str) -> None:
        """Print a text that the model wrote, on one line, cut to the terminal's width."""
        line = escape_control_characters(text, keep="")
        if self.console.is_terminal:
            line = line[: max(20, self.console.width - 12)]
        self.say(f"         “{line}”", "italic cyan")

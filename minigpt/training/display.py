"""What a person sees while a model trains, on standard error."""

import sys

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from minigpt.config import TrainingConfig
from minigpt.runs.run_directory import Metrics
from minigpt.system.console import PipeSafeConsole
from minigpt.system.terminal import escape_control_characters

HEADER = f"{'step':>7}  {'train':>7}  {'val':>7}  {'it/s':>7}  {'chars/s':>9}  {'left':>8}"


class Display:
    """A table that grows by a row at each evaluation and, on a terminal, a bar below it.

    Where standard error is not a terminal it is the same table in plain lines, without control codes.
    """

    def __init__(self, config: TrainingConfig, title: str = "", quiet: bool = False) -> None:
        """For a training of that configuration; the title, if any, stands before the bar. If `quiet`, all is silent."""
        self.max_iters = config.max_iters
        in_notebook = "ipykernel" in sys.modules  # whose streams say that they are terminals, and can't move a cursor
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
        self.bar.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line of text."""
        self.console.say(text, style)

    def expect(self, max_iters: int) -> None:
        """So many steps will be made, and not as many as the configuration said."""
        self.max_iters = max_iters
        self.bar.update(self.task, total=max_iters)

    def begin(self, step: int) -> None:
        """The table's header and the bar, after so many steps."""
        self.say(HEADER, "bold")
        self.bar.update(self.task, completed=step)
        self.bar.start()

    def stepped(self, step: int, characters: float, training_seconds: float, seconds: float) -> None:
        """The bar after `step` steps over `characters`; `seconds` has the evaluations too."""
        speed = f"{step / training_seconds:,.1f} it/s · {characters / training_seconds:,.0f} characters/s"
        left = clock(seconds / step * (self.max_iters - step))
        self.bar.update(self.task, completed=step, speed=f"{speed} · {left} left")

    def evaluated(self, metrics: Metrics, seconds: float, best_so_far: bool) -> None:
        """A row of the table; `seconds` is the time since the start, evaluations included."""
        self.bar.update(self.task, completed=metrics.step)
        step = metrics.step
        row = f"{step:7,}  {metrics.train_loss:7.4f}  {metrics.validation_loss:7.4f}"
        if step:
            rates = f"{step / metrics.seconds:7,.1f}  {metrics.characters / metrics.seconds:9,.0f}"
            row += f"  {rates}  {clock(seconds / step * (self.max_iters - step)):>8}"
        self.say(row, "" if best_so_far else "yellow")

    def wrote(self, text: str) -> None:
        """What the model wrote just now, on one line, cut to the terminal's width."""
        line = escape_control_characters(text, keep="")
        if self.console.is_terminal:
            line = line[: max(20, self.console.width - 12)]
        self.say(f"         “{line}”", "italic cyan")


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

"""The screen: standard error, for progress and messages."""

from rich.console import Console
from rich.text import Text

from minigpt.system.files import silence_stream
from minigpt.system.terminal import escape_control_characters


class PipeSafeConsole(Console):
    """Falls silent when nobody reads it any more: what can't be shown must not end a training."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        silence_stream(self.file)

    def say(self, text: str, style: str = "") -> None:
        """A line of text."""
        try:
            self.print(Text(escape_control_characters(text), style=style))
        except OSError:
            self.on_broken_pipe()

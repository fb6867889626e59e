"""A console for progress and messages on standard error."""

from rich.console import Console
from rich.text import Text

from minigpt.system.files import silence_stream
from minigpt.system.terminal import escape_control_characters, wrap_words


class PipeSafeConsole(Console):
    """A console that stops printing when its reader is gone: a closed pipe must not end a training run."""

    def on_broken_pipe(self) -> None:
        """Stop printing."""
        self.quiet = True
        silence_stream(self.file)

    def say(self, text: str, style: str = "") -> None:
        """Print a line of text, with control characters made visible. On a terminal it breaks between words."""
        text = escape_control_characters(text)
        try:
            self.print(Text(wrap_words(text, self.width) if self.is_terminal else text, style=style))
        except OSError:
            self.on_broken_pipe()

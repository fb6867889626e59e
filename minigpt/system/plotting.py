"""What every plot shares: a figure that needs no screen, a PNG file, and text that the fonts can draw."""

import functools
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from minigpt.system.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def create_figure(width: float, height: float) -> "Figure":
    """Return an empty figure for `write_png`.

    Args:
        width: in inches, at 120 dots per inch.
        height: in inches.
    """
    backend = os.environ.pop("MPLBACKEND", None)  # a file needs no backend, and the user's may not be installed
    from matplotlib.figure import Figure

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def write_png(path: Path, figure: "Figure") -> None:
    """Write a figure as a PNG, all or nothing. Raise FileError."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())


def replace_undrawable(text: str) -> str:
    """Return the text on one line: a line break becomes ¶, and a character that the fonts lack a middle dot."""
    known = _find_font_characters()
    return "".join(c if c.isprintable() and ord(c) in known else "¶" if c == "\n" else "·" for c in text)


@functools.cache
def _find_font_characters() -> frozenset[int]:
    """Return the code points that both fonts of the plots have: sans-serif and monospace."""
    from matplotlib import font_manager

    families = (font_manager.FontProperties(family=[name]) for name in ("sans-serif", "monospace"))
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in families]
    return frozenset.intersection(*(frozenset(font.get_charmap()) for font in fonts))

"""What every picture shares: a figure that needs no screen, written whole, and text that its font can draw."""

import functools
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from minigpt.system.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def create_figure(width: float, height: float) -> "Figure":
    """An empty figure of that many inches, for `write_png`."""
    backend = os.environ.pop("MPLBACKEND", None)  # a picture in a file needs none, and a foreign one may be missing
    from matplotlib.figure import Figure

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def write_png(path: Path, figure: "Figure") -> None:
    """Write the figure as a PNG, all or nothing. Raises FileError."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())


def replace_undrawable(text: str) -> str:
    """The text on one line, of characters that the fonts have; a line break becomes ¶, any other a middle dot."""
    known = _find_font_characters()
    return "".join(c if c.isprintable() and ord(c) in known else "¶" if c == "\n" else "·" for c in text)


@functools.cache
def _find_font_characters() -> frozenset[int]:
    """The code points that both fonts of the pictures have, the plain one and the one of fixed width."""
    from matplotlib import font_manager

    families = (font_manager.FontProperties(family=[name]) for name in ("sans-serif", "monospace"))
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in families]
    return frozenset.intersection(*(frozenset(font.get_charmap()) for font in fonts))

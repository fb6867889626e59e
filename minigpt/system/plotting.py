"""What every plot shares: a figure that needs no screen, a PNG file, and text that the fonts can draw."""

import io
import itertools
import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minigpt.system.files import write_atomic
from minigpt.system.warn_once import warn_once

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_missing: list[str] = []  # the characters that the warning has named
MAX_NAMED = 10  # characters without a font that a warning names


def create_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """Return an empty figure for `write_png`.

    Args:
        width: in inches, at 120 dots per inch.
        height: in inches.
        layout: "constrained" makes room for titles and labels; None leaves the places of the axes to the caller.
    """
    backend = os.environ.pop("MPLBACKEND", None)  # a file needs no backend, and the user's may not be installed
    from minigpt.system.fonts import FallbackFigure

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
    return FallbackFigure(figsize=(width, height), dpi=120, layout=layout)


def write_plain_numbers(axis: "Axis") -> None:
    """Write the numbers of an axis as 5,000,000, and not as 5 with a power of ten elsewhere."""
    from matplotlib.ticker import StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def write_png(path: Path, figure: "Figure") -> None:
    """Write a figure as a PNG, all or nothing. Raise FileError."""
    write_atomic(path, render_png(figure))


def render_png(figure: "Figure") -> bytes:
    """Return a figure as the content of a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


class Plottable:
    """Base class of a result that a notebook shows as a figure. Matplotlib is imported when the figure is drawn."""

    def plot(self) -> "Figure":
        """Draw the result."""
        raise NotImplementedError

    def _repr_png_(self) -> bytes:
        """Return the picture that a notebook shows."""
        return render_png(self.plot())


def replace_undrawable(text: str) -> str:
    """Return the text on one line: a line break becomes ¶, and a character that no installed font has a middle dot.

    The first time that a font is missing, a warning names the characters.
    """
    from minigpt.system.fonts import find_drawable

    printable = {c for c in text if c.isprintable()}
    drawable = find_drawable(printable)
    if lost := sorted(printable - drawable):
        named = " ".join(lost[:MAX_NAMED]) + (" …" if len(lost) > MAX_NAMED else "")
        _warn_of_missing_font(named)
    return "".join(c if c in drawable else "¶" if c == "\n" else "·" for c in text)


def make_token_label(token: str) -> str:
    """Return a token as the label of an axis, as `replace_undrawable` does. A space becomes ␣, which can be seen."""
    return replace_undrawable(token).replace(" ", "␣")


def _warn_of_missing_font(characters: str) -> None:
    """Warn of the first missing characters, and of no others later."""
    if not _missing:
        _missing.append(characters)
        warn_once(f"no installed font has {characters}: pictures show · in their place; install a font that has them")


def cut_to_width(text: str, columns: int) -> str:
    """Return the beginning of a text that fits into columns; a Chinese or Japanese character takes two of them."""
    ends = itertools.accumulate(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return "".join(c for c, end in zip(text, ends, strict=True) if end <= columns)

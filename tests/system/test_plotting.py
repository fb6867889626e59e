"""Text in plots: other fonts for characters that the plots' own fonts lack, and dots where no font has them."""

import io
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, get_data_path
from matplotlib.figure import Figure

from minigpt.system.fonts import find_fallback_families
from minigpt.system.plotting import _missing, create_figure, replace_undrawable, write_plain_numbers

KANJI, EMOJI = "漢", "🙂"  # Matplotlib's own fonts have neither


@pytest.fixture(autouse=True)
def own_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the fonts that Matplotlib ships are installed."""
    own = [font for font in font_manager.fontManager.ttflist if font.fname.startswith(get_data_path())]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)


@pytest.fixture
def square_font(tmp_path: Path, own_fonts: None) -> str:
    """A font is installed in which the kanji is a black square."""
    pen = TTGlyphPen(None)
    for n, point in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if n else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(KANJI): "square"})
    builder.setupGlyf({".notdef": square, "square": square})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=0)
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "square.ttf")
    font_manager.fontManager.addfont(tmp_path / "square.ttf")
    return "Square"


def draw(figure: Figure) -> np.ndarray:
    """The picture of a figure: (height, width) of brightness."""
    file = io.BytesIO()
    figure.savefig(file, format="rgba")
    width, height = figure.canvas.get_width_height()
    return np.frombuffer(file.getvalue(), np.uint8).reshape(height, width, 4)[:, :, 0]


def test_characters_that_the_fonts_have_stay() -> None:
    assert replace_undrawable("Мой дядя αβγ “é” — ’…") == "Мой дядя αβγ “é” — ’…"


def test_other_characters_become_dots_and_line_breaks_a_pilcrow() -> None:
    _missing.clear()
    with pytest.warns(UserWarning, match=f"no installed font has {KANJI} {EMOJI}: pictures show"):
        assert replace_undrawable(f"a\nb\tc\x1b{KANJI}{EMOJI}\u2028") == "a¶b·c····"
    replace_undrawable("字")  # one warning is enough: a second would be an error


def test_another_installed_font_draws_what_the_own_fonts_lack(square_font: str) -> None:
    assert replace_undrawable(f"a{KANJI}") == f"a{KANJI}"
    assert find_fallback_families(f"a{KANJI}") == [square_font]
    assert find_fallback_families("abc") == []
    figure = create_figure(2, 2)
    figure.text(0.2, 0.2, KANJI, size=72, family="monospace")
    assert (draw(figure) < 10).mean() > 0.1  # the square covers a fifth of the picture


def test_large_numbers_are_written_out() -> None:
    figure = create_figure(4, 3)
    axes = figure.subplots()
    axes.plot([0, 25_000_000], [0, 1])
    write_plain_numbers(axes.xaxis)
    draw(figure)
    assert "25,000,000" in [label.get_text() for label in axes.get_xticklabels()]

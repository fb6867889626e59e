"""Find installed fonts for the characters that the fonts of the plots lack, such as Japanese."""

import functools
from collections.abc import Iterable
from contextlib import suppress

from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

LAST_RESORT = "Last Resort"  # a font of Matplotlib that has a box for every character
REGULAR = 400  # the weight of a font that is neither light nor bold


class FallbackFigure(Figure):
    """A figure whose texts use other installed fonts for the characters that their own fonts lack."""

    def draw(self, renderer: RendererBase) -> None:
        """Choose the fonts of all texts, and draw."""
        for text in self.findobj(_is_text):
            assert isinstance(text, Text)
            if more := find_fallback_families(text.get_text()):
                text.set_fontfamily([*dict.fromkeys([*text.get_fontfamily(), *more])])
        super().draw(renderer)


def _is_text(artist: Artist) -> bool:
    return isinstance(artist, Text)


def find_drawable(characters: Iterable[str]) -> set[str]:
    """Return the characters that an installed font has."""
    wanted = {ord(character) for character in characters}
    return {chr(code) for code in wanted - _search_fonts(wanted - find_own_characters())[1]}


def find_fallback_families(text: str) -> list[str]:
    """Return the families of fonts that have the characters of a text which the plots' own fonts lack."""
    return _search_fonts({ord(character) for character in text} - find_own_characters())[0]


def _search_fonts(codes: set[int]) -> tuple[list[str], set[int]]:
    """Return families that together have the code points, and the code points that no font has."""
    families, missing = [], set(codes)
    if missing:
        _add_new_fonts()
    for family, path in _list_fonts() if missing else ():
        if found := missing & _read_characters(path):
            families.append(family)
            missing -= found
        if not missing:
            break
    return families, missing


@functools.cache
def _add_new_fonts() -> None:
    """Add the fonts that were installed after Matplotlib made its list, which it keeps on disk."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with suppress(OSError, RuntimeError):
                font_manager.fontManager.addfont(path)


def _list_fonts() -> list[tuple[str, str]]:
    """Return the family and the file of every font, upright and regular ones first."""
    fonts = [font for font in font_manager.fontManager.ttflist if not font.name.startswith(LAST_RESORT)]
    fonts.sort(key=lambda font: (font.style != "normal", font.weight != REGULAR, font.name))
    return [(font.name, font.fname) for font in fonts]


@functools.cache
def _read_characters(path: str) -> frozenset[int]:
    """Return the code points of a font; none for one that cannot be drawn, such as a font of bitmaps."""
    try:
        font = font_manager.get_font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@functools.cache
def find_own_characters() -> frozenset[int]:
    """Return the code points that both fonts of the plots have: sans-serif and monospace."""
    families = (font_manager.FontProperties(family=[name]) for name in ("sans-serif", "monospace"))
    return frozenset.intersection(*(_read_characters(font_manager.findfont(family)) for family in families))

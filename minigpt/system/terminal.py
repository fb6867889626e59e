"""Text made safe for a terminal: a model can write control characters, which a terminal would obey."""

import re
import shutil
import unicodedata
from typing import TextIO

_HIDDEN_CATEGORIES = {"Cc", "Cs"}  # Unicode's control and surrogate characters
# Of the format characters (Cf), those that change the order or the shapes of the text after them: the embeddings,
# overrides and isolates of bidirectional text, and the deprecated ones. The others belong to words of some script:
# Persian and Hindi need joiners, Hebrew and Arabic need marks of direction, flags need tags.
_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x2070)}

# A word with the spaces before it. A command at the end of a line is one word, so that it can be copied.
_WORD = re.compile(r" *(?:(?<=: )(?:python -m |\S*)minigpt .*|\S+)")


def escape_control_characters(text: str, keep: str = "\n\t") -> str:
    r"""Replace characters that a terminal obeys, or that reorder other text, by visible signs.

    Args:
        text: any text.
        keep: control characters that stay.

    >>> escape_control_characters("two\nlines \x1b[31m", keep="")
    'two␊lines ␛[31m'
    """
    return "".join([_to_visible_sign(c) if _is_hidden(c) and c not in keep else c for c in text])


def _is_hidden(character: str) -> bool:
    return ord(character) in _REORDERING or unicodedata.category(character) in _HIDDEN_CATEGORIES


def _to_visible_sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def fit_to_terminal(text: str, stream: TextIO, indent: int = 0) -> str:
    """Return a text with line breaks between words if the stream is a terminal; any other stream gets it as it is."""
    return wrap_words(text, shutil.get_terminal_size().columns, indent) if stream.isatty() else text


def wrap_words(text: str, width: int, indent: int = 0) -> str:
    r"""Break lines between words. A longer word has a line of its own.

    Args:
        text: one or more lines.
        width: columns of the terminal.
        indent: spaces before each line that continues another.

    >>> wrap_words("the sea sings", 8, indent=2)
    'the sea\n  sings'
    """
    return "\n".join(_wrap_line(line, width, indent) for line in text.split("\n"))


def _wrap_line(line: str, width: int, indent: int) -> str:
    if measure_width(line) <= width:
        return line
    rows, used = [""], 0
    for word in _WORD.findall(line):
        if used and used + measure_width(word) > width:
            rows.append("")
            word, used = " " * indent + word.lstrip(" "), 0
        rows[-1] += word
        used += measure_width(word)
    return "\n".join(rows)


def measure_width(text: str) -> int:
    """Return the number of columns of a text on a terminal: a Chinese character or an emoji takes two."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)

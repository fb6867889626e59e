"""Text made safe to show: what a model writes may hold control characters, which a terminal would obey."""

import unicodedata

HIDDEN = {"Cc", "Cf", "Cs"}  # Unicode's categories of control, format and surrogate characters
JOINER = "\u200d"  # holds composed emoji together


def escape_control_characters(text: str, keep: str = "\n\t") -> str:
    r"""The text with control and format characters, but for those in `keep`, as marks.

    >>> visible("two\nlines \x1b[31m", keep="")
    'two␊lines ␛[31m'
    """
    return "".join(
        _replace_control_character(c) if unicodedata.category(c) in HIDDEN and c not in keep + JOINER else c
        for c in text
    )


def _replace_control_character(character: str) -> str:
    """A visible sign for an invisible character."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of the control characters
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"

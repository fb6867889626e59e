"""Text made safe for a terminal: a model can write control characters, which a terminal would obey."""

import unicodedata

JOINER = "\u200d"  # zero-width joiner, which composed emoji need
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs"}  # Unicode's control, format and surrogate characters


def escape_control_characters(text: str, keep: str = "\n\t") -> str:
    r"""Replace control and format characters by visible signs.

    Args:
        text: any text.
        keep: control characters that stay.

    >>> escape_control_characters("two\nlines \x1b[31m", keep="")
    'two␊lines ␛[31m'
    """
    kept = keep + JOINER
    return "".join(
        _to_visible_sign(c) if unicodedata.category(c) in _HIDDEN_CATEGORIES and c not in kept else c for c in text
    )


def _to_visible_sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"

"""Text made safe for a terminal: a model can write control characters, which a terminal would obey."""

import unicodedata

_HIDDEN_CATEGORIES = {"Cc", "Cs"}  # Unicode's control and surrogate characters
# Of the format characters (Cf), those that change the order or the shapes of the text after them: the embeddings,
# overrides and isolates of bidirectional text, and the deprecated ones. The others belong to words of some script:
# Persian and Hindi need joiners, Hebrew and Arabic need marks of direction, flags need tags.
_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x2070)}


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

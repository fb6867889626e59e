"""Text in pictures: what the fonts have is drawn, what they lack becomes a dot."""

from minigpt.system.plotting import replace_undrawable


def test_other_alphabets_and_typographic_signs_are_drawn_as_they_are() -> None:
    assert replace_undrawable("Мой дядя αβγ “é” — ’…") == "Мой дядя αβγ “é” — ’…"


def test_what_cannot_be_drawn_is_a_dot_and_a_line_break_a_sign() -> None:
    assert replace_undrawable("a\nb\tc\x1b漢🙂\u2028") == "a¶b·c····"

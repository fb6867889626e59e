"""Text in plots: characters that the fonts lack become dots."""

from minigpt.system.plotting import replace_undrawable


def test_characters_that_the_fonts_have_stay() -> None:
    assert replace_undrawable("Мой дядя αβγ “é” — ’…") == "Мой дядя αβγ “é” — ’…"


def test_other_characters_become_dots_and_line_breaks_a_pilcrow() -> None:
    assert replace_undrawable("a\nb\tc\x1b漢🙂\u2028") == "a¶b·c····"

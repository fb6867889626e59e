"""Text on a terminal: what a terminal obeys is hidden, what a script needs is not; lines break between words."""

import io

import pytest

from minigpt.system.terminal import escape_control_characters, fit_to_terminal, wrap_words


def test_control_characters_are_escaped() -> None:
    assert escape_control_characters("a\x1b[31mb\x07\r\n\tc\x9b") == "a␛[31mb␇␍\n\tc⟨U+009B⟩"
    assert escape_control_characters("two\nlines", keep="") == "two␊lines"
    assert escape_control_characters("half\ud800\x7f") == "half⟨U+D800⟩␡"


@pytest.mark.parametrize("code", [*range(0x202A, 0x202F), *range(0x2066, 0x2070)])
def test_what_reorders_other_text_is_escaped(code: int) -> None:
    assert escape_control_characters(f"right{chr(code)}left") == f"right⟨U+{code:04X}⟩left"


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # Persian: a zero-width non-joiner
        "क्\u200dष",  # Hindi: a zero-width joiner
        "שלום\u200f!",  # Hebrew: a right-to-left mark
        "\u061cعربي\u200e",  # Arabic: an Arabic letter mark and a left-to-right mark
        "\u0600۱۲",  # Arabic: a number sign, which is visible
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England: tags
        "👩\u200d👩\u200d👧 🇩🇪 ❤\ufe0f",
        "Donau\u00addampf\u00adschiff",  # soft hyphens
        "é 漢\u2028",
    ],
)
def test_what_a_script_needs_stays(text: str) -> None:
    assert escape_control_characters(text) == text


def test_lines_break_between_words() -> None:
    assert wrap_words("the sea sings, the wind keeps", 12) == "the sea\nsings, the\nwind keeps"
    assert wrap_words("  model   gpt, of two blocks", 16, indent=4) == "  model   gpt,\n    of two\n    blocks"
    assert wrap_words("a  table\nas   it is\n", 10) == "a  table\nas   it is\n"
    assert wrap_words("one /a/path/that/is/longer two", 10) == "one\n/a/path/that/is/longer\ntwo"
    assert wrap_words("日本語 日本語", 9) == "日本語\n日本語"  # a character takes two columns


def test_a_command_at_the_end_of_a_line_stays_in_one_piece() -> None:
    command = ".venv/bin/minigpt sample runs/lecture --weights best"
    assert wrap_words(f"the run is there; next: {command}", 30) == f"the run is there; next:\n{command}"


def test_a_file_or_a_pipe_gets_long_lines() -> None:
    assert fit_to_terminal("sea " * 100, io.StringIO()) == "sea " * 100

"""Characters as numbers, and those that all versions of Unicode in use know."""

import pytest

from minigpt.tokenizers.code_points import has_known_characters, to_code_points


def test_the_code_points_are_those_of_the_characters() -> None:
    text = "aß漢👍\ud800\0"
    assert to_code_points(text).tolist() == [ord(character) for character in text]


@pytest.mark.parametrize("text", ["", "plain\0", "zwölf 漢字 👍🏽 e\u0301", "\ue000"])
def test_assigned_characters_are_known(text: str) -> None:
    assert has_known_characters(text)


@pytest.mark.parametrize("character", ["\u0378", "\U0003fffe", "\uffff", "\ud83d", "\udcff"])
def test_unassigned_characters_and_halves_of_pairs_are_not(character: str) -> None:
    assert not has_known_characters(f"a{character}b")

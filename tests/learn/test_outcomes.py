"""Results are compared whatever they are, and each difference is one that a learner can read."""

import numpy as np
import pytest

from minigpt.learn.exercise import WorkbookError
from minigpt.learn.outcomes import Raised, find_difference, format_value, is_same, name_parts


def test_an_error_and_an_array_differ() -> None:
    array, error = np.zeros((2, 3)), Raised("TypeError", "no", "")
    assert not is_same(array, error)
    assert not is_same(error, array)
    assert is_same(error, Raised("TypeError", "no", "line 3: x"))


@pytest.mark.parametrize(
    ("expected", "found", "place", "reason"),
    [
        ([1, 2], None, "", "it is None and must be a list: is `return` missing?"),
        (1.0, {"a": 1}, "", "it is a dict and must be a number"),
        ([[1], [2]], "ab", "", "it is a string and must be 2 values"),
        (
            np.zeros(2),
            None,
            "the gradient of x",
            "there is none: is the result cut off from it, by .item() or .detach()?",
        ),
    ],
)
def test_the_kinds_of_two_results_are_named(expected: object, found: object, place: str, reason: str) -> None:
    difference = find_difference(expected, found, place)
    assert difference is not None
    assert difference.reason == reason


def test_numbers_are_short_everywhere() -> None:
    value = {"k": [np.array([1 / 3]), 2 / 3], 4: "x"}
    assert format_value(value) == "{'k': [[0.3333], 0.6667], 4: 'x'}"


def test_parts_have_names() -> None:
    assert name_parts("split", (1, 2), "a", "b") == {"a": 1, "b": 2}
    with pytest.raises(WorkbookError, match=r"split must return 2 values: a, b\.$"):
        name_parts("split", 3, "a", "b")
    with pytest.raises(WorkbookError, match=r"Is `return` missing\?$"):
        name_parts("split", None, "a", "b")

"""Verbatim matches against a search with `in`, and the page that shows them."""

import random

import numpy as np
import pytest

from minigpt.studies.look.memorization import (
    compute_verbatim_share,
    cover_matches,
    describe_copying,
    find_match_lengths,
    find_verbatim,
    make_memorization_page,
    measure_verbatim_shares,
)


def search_matches(text: str, source: str) -> list[int]:
    return [
        next(n for n in range(len(text) - i, -1, -1) if n == 0 or text[i : i + n] in source) for i in range(len(text))
    ]


def search_cover(lengths: list[int]) -> list[int]:
    return [max([n for i, n in enumerate(lengths) if i <= c < i + n], default=0) for c in range(len(lengths))]


@pytest.mark.parametrize("alphabet", ["a", "ab", "abcd", "aé\u0301漢😀\ud800\x00"])
@pytest.mark.parametrize("seed", range(6))
def test_matches_are_those_that_a_search_finds(alphabet: str, seed: int) -> None:
    rng = random.Random(seed)
    source = "".join(rng.choices(alphabet, k=rng.randint(1, 200)))
    text = "".join(rng.choices(alphabet + "z", k=rng.randint(1, 60)))
    lengths = find_match_lengths(text, source)
    assert lengths.tolist() == search_matches(text, source)
    assert cover_matches(lengths).tolist() == search_cover(lengths.tolist())


def test_a_match_ends_where_either_text_ends() -> None:
    assert find_match_lengths("abc", "abc").tolist() == [3, 2, 1]
    assert find_match_lengths("abcabc", "abc").tolist() == [3, 2, 1, 3, 2, 1]  # no match runs over the source's end
    assert find_match_lengths("", "abc").tolist() == find_match_lengths("", "").tolist() == []
    assert find_match_lengths("abc", "").tolist() == [0, 0, 0]


def test_the_share_counts_characters_in_passages_of_the_length() -> None:
    source = "the quick brown fox jumps over the lazy dog"
    text = "quick brown fox" + "#" * 10 + "lazy " + "#" * 10
    covered = cover_matches(find_match_lengths(text, source))
    assert compute_verbatim_share(covered, 15) == compute_verbatim_share(covered, 10) == 15 / 40
    assert compute_verbatim_share(covered, 5) == 20 / 40
    assert compute_verbatim_share(covered, 16) == 0
    assert measure_verbatim_shares(text, source) == {10: 15 / 40, 20: 0.0, 40: 0.0}
    assert compute_verbatim_share(np.array([]), 3) == 0


def test_the_sentence_follows_from_the_shares() -> None:
    true = {10: 0.5, 20: 0.04, 40: 0.0}
    assert describe_copying({10: 0.9, 20: 0.7, 40: 0.6}, true).startswith("Mostly copied")
    assert describe_copying({10: 0.9, 20: 0.2, 40: 0.1}, true).startswith("Created, with copied pieces")
    hardly, no = (describe_copying({10: 0.4, 20: share, 40: 0.0}, true) for share in (0.05, 0.04))
    assert hardly.startswith("Created: 5.0% of what the model wrote, and 4.0%")
    assert "hardly more than" in hardly
    assert "no more than" in no
    assert describe_copying({10: 1.0, 20: 0.6, 40: 0.0}, {10: 1.0, 20: 1.0, 40: 0.9}).startswith("Created: 60.0%")


def test_the_page_shows_markup_as_text() -> None:
    source = "a text with <script> in it"
    texts = [(text, find_verbatim(text, source)) for text in ("<script>evil()</script>\x1b[31m", "a & b")]
    page = make_memorization_page("a <run>", *texts)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "<title>a &lt;run&gt;</title>" in page
    assert 'title="8 characters in a row">&lt;script&gt;</span>' in page

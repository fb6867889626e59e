"""Stop sequences in a text that arrives in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from minigpt.web.text_generation import StopMatcher

LETTERS = st.text("ab", max_size=12)


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_text_before_the_first_stop_sequence_is_shown(pieces: list[str], stops: list[str]) -> None:
    matcher, shown, is_found = StopMatcher(stops), "", False
    for piece in pieces:
        text, is_found = matcher.feed(piece)
        shown += text
        if is_found:
            break
    if not is_found:
        shown += matcher.flush()
    whole = "".join(pieces)
    # the sequence that is complete first ends the text, and of those the one that begins first
    ends = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    assert is_found == bool(ends)
    if not ends:
        assert shown == whole
    else:
        assert whole.startswith(shown) and any(whole[len(shown) :].startswith(stop) for stop in stops)
        assert not any(stop in shown for stop in stops)


def test_only_what_may_begin_a_stop_sequence_is_held_back() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.feed("the E") == ("the ", False)
    assert matcher.feed("Ne") == ("ENe", False)
    assert matcher.feed("EEND") == ("E", True)

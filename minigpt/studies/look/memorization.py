"""The view `copied`: how much of what the model writes stands word for word in the training text.

A suffix array (pydivsufsort) lists all suffixes of both texts in alphabetical order. The longest match of a suffix of
one text is the common prefix with the nearest suffix of the other text, above or below it in the list.
"""

import html
from collections.abc import Sequence

import numpy as np
from pydivsufsort import divsufsort, kasai

from minigpt.studies.look.html_page import make_page
from minigpt.system.terminal import escape_control_characters

LENGTHS = (10, 20, 40)  # characters of a verbatim passage
DARKEST = 40  # characters of a match that has the darkest shade


def find_match_lengths(text: str, source: str) -> np.ndarray:
    """Return for each position of `text` the length of its longest match in `source`: (N,) integers."""
    if not text or not source:
        return np.zeros(len(text), dtype=np.int64)
    codes = np.concatenate([_to_code_points(source) + 1, [0], _to_code_points(text) + 1])  # the 0 ends every match
    suffixes = divsufsort(codes)
    common = kasai(codes, suffixes)  # common prefix with the next suffix of the list
    in_text = suffixes > len(source)
    lengths = np.zeros(len(codes), dtype=np.int64)
    for places, step in ((np.flatnonzero(in_text), -1), (np.flatnonzero(in_text)[::-1], 1)):  # down the list, then up
        match = 0
        for place in places.tolist():
            beside = place + step
            if not 0 <= beside < len(codes):
                match = 0  # end of the list
                continue
            shared = int(common[min(place, beside)])
            match = min(match, shared) if in_text[beside] else shared
            start = suffixes[place]
            lengths[start] = max(lengths[start], match)
    return lengths[len(source) + 1 :]


def _to_code_points(text: str) -> np.ndarray:
    """Return the code points of the characters: (N,) integers."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)


def find_verbatim(text: str, source: str) -> np.ndarray:
    """Return for each character the length of the longest match with `source` that contains it: (N,) integers."""
    return cover_matches(find_match_lengths(text, source))


def cover_matches(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return for each character the length of the longest match that contains it: (N,), from the match lengths (N,)."""
    covered = np.zeros(len(lengths), dtype=np.int64)
    for start, length in enumerate(lengths):
        if start == 0 or length >= lengths[start - 1]:  # else it is the tail of the match before
            covered[start : start + length] = np.maximum(covered[start : start + length], length)
    return covered


def compute_verbatim_share(covered: np.ndarray, length: int) -> float:
    """Return the share of characters that belong to a match of at least `length` characters."""
    return float((covered >= length).mean()) if len(covered) else 0.0


def compute_verbatim_shares(covered: np.ndarray) -> dict[int, float]:
    """Return the share of characters in matches of at least 10, 20 and 40 characters, for those of `find_verbatim`."""
    return {length: compute_verbatim_share(covered, length) for length in LENGTHS}


def measure_verbatim_shares(text: str, source: str) -> dict[int, float]:
    """Measure the share of a text that stands in `source`, in passages of at least 10, 20 and 40 characters."""
    return compute_verbatim_shares(find_verbatim(text, source))


def describe_copying(written: dict[int, float], held_out: dict[int, float]) -> str:
    """Return a sentence that compares the verbatim shares of the written text with those of held-out text."""
    middle = LENGTHS[1]
    ours, theirs = written[middle], held_out[middle]
    figures = f"{ours:.1%} of what the model wrote, and {theirs:.1%} of held-out text, stands in passages of "
    figures += f"{middle} characters or more in the training text"
    if ours <= theirs:
        return f"Created: {figures}, so it copies no more than the text repeats itself."
    if ours > 0.5:
        return f"Mostly copied: {figures}."
    if ours > 2 * theirs + 0.01:
        return f"Created, with copied pieces: {figures}."
    return f"Created: {figures}, so it copies hardly more than the text repeats itself."


def make_memorization_page(title: str, written: tuple[str, np.ndarray], held_out: tuple[str, np.ndarray]) -> str:
    """Return a page of HTML: two texts shaded by their longest match with the training text, and their shares.

    Args:
        title: the title of the page.
        written: what the model wrote, and its lengths by `find_verbatim`.
        held_out: text that the model has not seen, and its lengths.
    """
    covers = {"what the model wrote": written, "held-out text": held_out}
    shares = [compute_verbatim_shares(covered) for _, covered in covers.values()]
    rows = ""
    for length in LENGTHS:
        cells = "".join(f"<td>{share[length]:.1%}</td>" for share in shares)
        rows += f"<tr><td>{length} characters or more</td>{cells}</tr>"
    heads = "".join(f"<th>{name}</th>" for name in covers)
    texts = "".join(f'<h2>{name}</h2><pre dir="auto">\n{_shade(*pair)}</pre>' for name, pair in covers.items())
    return make_page(
        title,
        f"<p><b>{describe_copying(*shares)}</b></p>"
        "<p>A darker character belongs to a longer match with the training text; a match of "
        f"{DARKEST} characters or more is darkest. Point at a character to read the length.</p>"
        f"<table><tr><th>word for word in the training text, in passages of</th>{heads}</tr>{rows}</table>{texts}",
    )


def _shade(text: str, covered: np.ndarray) -> str:
    """Return the text as HTML, with a shaded span for each stretch of equal match length."""
    pieces, start = [], 0
    for i in range(1, len(text) + 1):
        if i == len(text) or covered[i] != covered[start]:
            strength = min(1.0, max(0.0, (covered[start] - 4) / (DARKEST - 4)))
            shown = html.escape(escape_control_characters(text[start:i]))
            pieces.append(
                f'<span style="--s:{strength:.2f}" title="{covered[start]} characters in a row">{shown}</span>'
            )
            start = i
    return "".join(pieces)

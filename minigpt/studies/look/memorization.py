"""Copied or created: how much of a text stands, word for word, in another.

A suffix array (pydivsufsort) over both texts lists all their suffixes in alphabetical order, so the
longest match of a place in the one is beside it in the list: the nearest suffix of the other above or
below, and as many characters as the two have in common.
"""

import html
from collections.abc import Sequence

import numpy as np
from pydivsufsort import divsufsort, kasai

from minigpt.studies.look.html_page import make_page
from minigpt.system.terminal import escape_control_characters

LENGTHS = (10, 20, 40)  # characters in a row
SHADES = 40  # at so long a match the shading is darkest


def find_match_lengths(text: str, source: str) -> np.ndarray:
    """For each place in `text`, how many characters from there on stand somewhere in `source`: (N,) integers."""
    if not text or not source:
        return np.zeros(len(text), dtype=np.int64)
    codes = np.concatenate([to_code_points(source) + 1, [0], to_code_points(text) + 1])  # a 0 ends every match
    suffixes = divsufsort(codes)
    common = kasai(codes, suffixes)  # with the next suffix of the list
    ours = suffixes > len(source)  # those of the text
    lengths = np.zeros(len(codes), dtype=np.int64)
    for places, step in ((np.flatnonzero(ours), -1), (np.flatnonzero(ours)[::-1], 1)):  # down the list, and up
        match = 0
        for place in places.tolist():
            beside = place + step
            if not 0 <= beside < len(codes):
                match = 0  # the end of the list
                continue
            shared = int(common[min(place, beside)])
            match = min(match, shared) if ours[beside] else shared
            start = suffixes[place]
            lengths[start] = max(lengths[start], match)
    return lengths[len(source) + 1 :]


def to_code_points(text: str) -> np.ndarray:
    """The characters' numbers: (N,) integers."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)


def cover_matches(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """For each character the length of the longest match that holds it, from the lengths by where they start: (N,)."""
    covered = np.zeros(len(lengths), dtype=np.int64)
    for start, length in enumerate(lengths):
        if start == 0 or length >= lengths[start - 1]:  # otherwise it is the end of the match before
            covered[start : start + length] = np.maximum(covered[start : start + length], length)
    return covered


def compute_verbatim_share(covered: np.ndarray, length: int) -> float:
    """The share of the characters that are part of a match of at least `length` characters."""
    return float((covered >= length).mean()) if len(covered) else 0.0


def measure_verbatim_shares(text: str, source: str) -> dict[int, float]:
    """The share of a text that stands in `source`, in runs of at least 10, 20 and 40 characters."""
    covered = cover_matches(find_match_lengths(text, source))
    return {length: compute_verbatim_share(covered, length) for length in LENGTHS}


def describe_copying(written: dict[int, float], true: dict[int, float]) -> str:
    """One sentence on what two `shares` say: is it only copying?"""
    middle = LENGTHS[1]
    ours, theirs = written[middle], true[middle]
    figures = f"{ours:.1%} of what the model wrote, and {theirs:.1%} of text it has never seen, stands in runs of "
    figures += f"{middle} characters or more in the training text"
    if ours <= theirs:
        return f"Created: {figures}, so it copies no more than the text repeats itself."
    if ours > 0.5:
        return f"Mostly copied: {figures}."
    if ours > 2 * theirs + 0.01:
        return f"Created, with copied pieces: {figures}."
    return f"Created: {figures}, so it copies hardly more than the text repeats itself."


def make_memorization_page(title: str, written: str, true: str, source: str) -> str:
    """A page of HTML: `written` and `true` text shaded by their longest match in `source`, with the shares of both."""
    covers = {"what the model wrote": (written, cover_matches(find_match_lengths(written, source)))}
    covers["true text it has never seen"] = (true, cover_matches(find_match_lengths(true, source)))
    rows = ""
    for length in LENGTHS:
        cells = "".join(f"<td>{compute_verbatim_share(covered, length):.1%}</td>" for _, covered in covers.values())
        rows += f"<tr><td>{length} characters or more</td>{cells}</tr>"
    heads = "".join(f"<th>{name}</th>" for name in covers)
    texts = "".join(f"<h2>{name}</h2><pre>\n{shaded(*pair)}</pre>" for name, pair in covers.items())
    sentence = describe_copying(
        *(({n: compute_verbatim_share(covered, n) for n in LENGTHS}) for _, covered in covers.values())
    )
    return make_page(
        title,
        f"<p><b>{sentence}</b></p><p>The darker a character, the longer the match with the training text that it is "
        f"part of; from {SHADES} characters on it is darkest. Point at it to read the length.</p>"
        f"<table><tr><th>word for word in the training text, in runs of</th>{heads}</tr>{rows}</table>{texts}",
    )


def shaded(text: str, covered: np.ndarray) -> str:
    """The text as HTML, each stretch of equal cover in a span of its shade."""
    pieces, start = [], 0
    for i in range(1, len(text) + 1):
        if i == len(text) or covered[i] != covered[start]:
            strength = min(1.0, max(0.0, (covered[start] - 4) / (SHADES - 4)))
            shown = html.escape(escape_control_characters(text[start:i]))
            pieces.append(
                f'<span style="--s:{strength:.2f}" title="{covered[start]} characters in a row">{shown}</span>'
            )
            start = i
    return "".join(pieces)

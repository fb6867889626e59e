"""The view `embedding`: the token embedding in two dimensions. Do similar characters have similar vectors?"""

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.errors import ConfigError
from minigpt.system.plotting import create_figure, replace_undrawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEIGHBORS = 3
MAX_TOKENS = 4096  # every pair is compared
COLORS = {
    "vowels": "#d62728",
    "consonants": "#1f77b4",
    "letters": "#17becf",  # letters of other alphabets
    "capitals": "#2ca02c",
    "digits": "#9467bd",
    "punctuation": "#ff7f0e",
    "white space": "#7f7f7f",
    "other": "#8c564b",
}


def classify_character(character: str) -> str:
    """Return the kind of a character, a key of COLORS. A longer token has the kind of its first non-blank."""
    character = character.lstrip(" ")[:1] or " "
    category = unicodedata.category(character)
    if character.isspace():
        return "white space"
    if category == "Lu":
        return "capitals"
    if category[0] == "L":
        letter = unicodedata.normalize("NFD", character)[0]
        return "vowels" if letter in "aeiou" else "consonants" if letter.isascii() else "letters"
    return {"N": "digits", "P": "punctuation", "S": "punctuation"}.get(category[0], "other")


def project_to_plane(table: Tensor) -> Tensor:
    """Project the rows of a table (V, C) to their two principal components (V, 2)."""
    centered = table.detach().double() - table.detach().double().mean(dim=0)
    U, S, _ = torch.linalg.svd(centered, full_matrices=False)
    plane = F.pad(U * S, (0, 2))[:, :2]  # a table of one column has one component
    largest = plane.gather(0, plane.abs().argmax(dim=0, keepdim=True))  # (1, 2)
    return plane * largest.sign()  # the sign is arbitrary: make the largest entry positive


def measure_neighbor_kinds(table: Tensor, kinds: list[str]) -> tuple[float, float]:
    """Measure how often one of a row's three nearest neighbors (by cosine) has the row's kind.

    Args:
        table: the embedding (V, C).
        kinds: the kind of each row.

    Returns:
        The share of such neighbors, and the share expected by chance.

    Raises:
        ConfigError: the table has too many rows.
    """
    V = len(kinds)
    if V > MAX_TOKENS:
        limit = f"the embedding is drawn for {MAX_TOKENS:,} different tokens at most"
        raise ConfigError(f"{limit}, and this run has {V:,}: take another run")
    if V < 2:
        return 0.0, 0.0
    unit = F.normalize(table.detach().double(), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)  # (V, V)
    nearest = similarity.topk(min(NEIGHBORS, V - 1), dim=1).indices.tolist()
    hits = [kinds[j] == kinds[i] for i, row in enumerate(nearest) for j in row]
    chance = sum(count * (count - 1) for count in Counter(kinds).values()) / (V * (V - 1))
    return sum(hits) / len(hits), chance


def draw_embedding(table: Tensor, characters: list[str]) -> "Figure":
    """Draw the rows of a table (V, C), one for each character, in their two principal components."""
    kinds = [classify_character(c) for c in characters]
    plane = project_to_plane(table).tolist()
    share, chance = measure_neighbor_kinds(table, kinds)
    figure = create_figure(10, 8)
    axes = figure.subplots()
    for name, color in COLORS.items():
        points = [(x, y, c) for (x, y), c, k in zip(plane, characters, kinds, strict=True) if k == name]
        if points:
            axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], s=0, color=color)
            axes.plot([], [], "o", color=color, label=name)
        for x, y, c in points:
            sign = {" ": "space", "\n": "¶"}.get(c, replace_undrawable(c))
            axes.text(x, y, sign, ha="center", va="center", size=16, weight="bold", color=color, parse_math=False)
    axes.legend(fontsize=12, loc="best")
    axes.set_xlabel("first principal component", size=12)
    axes.set_ylabel("second", size=12)
    axes.set_title(
        f"{share:.0%} of a character's {NEIGHBORS} nearest neighbors are of its kind (by chance: {chance:.0%})",
        size=14,
    )
    return figure

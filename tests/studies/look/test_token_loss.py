"""The losses of a text are those of the evaluation, token by token."""

import re

import pytest

from minigpt.errors import DataError, UnknownCharacterError
from minigpt.runs.run import Run
from minigpt.studies.look.token_loss import color_by_loss, compute_text_losses, make_token_loss_page


def test_the_mean_of_the_losses_is_the_exact_loss(trained: Run, text: str) -> None:
    piece = text[300:400]
    losses = compute_text_losses(trained, piece)
    assert len(losses) == 99
    assert sum(losses) / 99 == pytest.approx(trained.loss(piece), rel=1e-6)
    # In the second window the first prediction sees one character.
    assert losses[16] == pytest.approx(compute_text_losses(trained, piece[16:18])[0], rel=1e-5)


def test_a_text_too_short_or_with_an_unknown_character_is_refused(trained: Run) -> None:
    with pytest.raises(DataError, match="a text of 1 tokens has nothing to predict"):
        compute_text_losses(trained, "s")
    with pytest.raises(UnknownCharacterError):
        compute_text_losses(trained, "sea é")


def test_the_page_shades_each_token_by_its_loss() -> None:
    page = make_token_loss_page("t", "a<b\n", [0.0, 6.931471805599453, 100.0])
    spans = re.findall(r'<span style="--s:([\d.]+)" title="([\d.]+) bits">(.*?)</span>', page, re.S)
    assert spans == [("0.00", "0.00", "&lt;"), ("1.00", "10.00", "b"), ("1.00", "144.27", "⏎\n")]
    assert "The mean is 51.42 bits per token" in page


def test_the_terminal_shows_the_whole_text_in_color(trained: Run, text: str) -> None:
    piece = "KEEPER:\nThe sea\n"
    shown = color_by_loss(piece, compute_text_losses(trained, piece))
    assert shown.plain.replace("⏎", "") == piece
    assert any(span.style for span in shown.spans)
    assert "\x1b" not in color_by_loss("a\x1b[0m", [1.0] * 4).plain

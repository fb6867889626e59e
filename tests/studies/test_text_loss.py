"""The loss of a text in parts is its exact loss."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

import minigpt
from minigpt.errors import DataError, UnknownCharacterError
from minigpt.model.loss import TOKENS_PER_BATCH
from minigpt.runs.exact_loss import ExactLoss
from minigpt.runs.run import Run
from minigpt.studies.ngram_companion import fit_ngram_companion
from minigpt.studies.text_loss import TextLoss, find_common_text, stream_text_losses


@pytest.mark.parametrize("characters", [2, 17, TOKENS_PER_BATCH, 2 * TOKENS_PER_BATCH + 5])
def test_the_sum_of_the_parts_is_the_exact_loss(trained: Run, text: str, characters: int) -> None:
    part = text[:characters]
    parts = list(stream_text_losses(trained, part))
    assert len(parts) == -(-(characters - 1) // TOKENS_PER_BATCH)
    total = sum(parts, TextLoss())
    ids = torch.tensor(trained.tokenizer.encode(part))
    exact = ExactLoss.measure(trained.model, ids, trained.tokenizer, "", "")
    assert total.loss == pytest.approx(exact.loss, rel=1e-6) and total.predictions == exact.predictions
    assert total.bits_per_byte == pytest.approx(exact.bits_per_byte, rel=1e-6)


def test_an_n_gram_model_is_measured_with_its_whole_context(trained: Run, text: str) -> None:
    counted = fit_ngram_companion(trained)
    part = text[: TOKENS_PER_BATCH + 900]
    total = sum(stream_text_losses(counted, part), TextLoss())
    losses = cast(Any, counted.model).token_losses(torch.tensor(trained.tokenizer.encode(part)))
    assert total.loss == pytest.approx(losses.mean().item(), rel=1e-12) and total.predictions == len(losses)


def test_a_text_without_a_prediction_and_an_unknown_character_are_refused(trained: Run) -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        list(stream_text_losses(trained, "s"))
    with pytest.raises(UnknownCharacterError):
        list(stream_text_losses(trained, "sea Ω"))


def test_the_common_text_is_the_beginning_of_the_validation_split(trained: Run, text: str, tmp_path: Path) -> None:
    other = minigpt.train("bigram", data=trained.info.data_paths, out=tmp_path / "other", max_iters=1, snapshots=0)
    validation = text[int(0.9 * len(text)) :]
    assert find_common_text({"a": trained, "b": other}, 10**6) == validation
    assert find_common_text({"a": trained}, 100) == validation[:100]
    (tmp_path / "text.txt").write_text(text[:5000])
    third = minigpt.train("bigram", data=tmp_path / "text.txt", out=tmp_path / "third", max_iters=1, snapshots=0)
    with pytest.raises(DataError, match="'a' and 'c' have different validation texts: give a text"):
        find_common_text({"a": trained, "c": third}, 100)

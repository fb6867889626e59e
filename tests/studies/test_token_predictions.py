"""The prediction of each token, against the softmax of a call of the model for that token alone."""

import pytest
import torch
from study_runs import KINDS, T, compute_plain_logits, make_study_run

from minigpt import studies
from minigpt.errors import ConfigError, UnknownCharacterError
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import without_heads
from minigpt.studies.token_predictions import TokenPredictions, stream_predictions

TEXT = "to be, or not: Whether 'tis nobler in the mind"


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run(request.param, tmp_path_factory.mktemp("runs") / request.param)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run("gpt", tmp_path_factory.mktemp("runs") / "gpt")


def predict_one_by_one(run: Run, ids: list[int]) -> tuple[list[float], list[int]]:
    """The probability of each token, and its rank: how many tokens are at least as likely."""
    probabilities, ranks = [], []
    for n in range(1, len(ids)):
        p = torch.softmax(compute_plain_logits(run, ids[:n]).double(), dim=-1)
        probabilities.append(float(p[ids[n]]))
        ranks.append(sorted(p.tolist(), reverse=True).index(float(p[ids[n]])) + 1)
    return probabilities, ranks


def test_each_token_is_predicted_from_the_tokens_before_it(run: Run) -> None:
    predictions = studies.predict_text(run, TEXT)
    probabilities, ranks = predict_one_by_one(run, run.tokenizer.encode(TEXT))
    assert len(probabilities) > 2 * run.model.config.block_size
    assert predictions.probabilities.tolist() == pytest.approx(probabilities, rel=1e-4)
    assert predictions.losses.exp().reciprocal().tolist() == pytest.approx(probabilities, rel=1e-4)
    assert predictions.ranks.tolist() == ranks


@pytest.mark.parametrize("length", [0, 1, 2, 8, 9, 10, 11])
def test_texts_about_as_long_as_the_window(gpt: Run, length: int) -> None:
    ids = gpt.tokenizer.encode(TEXT)[:length]
    predictions = studies.predict_text(gpt, ids)
    probabilities, ranks = predict_one_by_one(gpt, ids)
    assert predictions.probabilities.tolist() == pytest.approx(probabilities, rel=1e-4)
    assert predictions.ranks.tolist() == ranks


def test_heads_are_off_for_every_window(gpt: Run) -> None:
    heads = [(0, 0), (1, 1)]
    predictions = studies.predict_text(gpt, TEXT, heads_off=heads)
    with without_heads(gpt.model, heads):
        probabilities, _ = predict_one_by_one(gpt, gpt.tokenizer.encode(TEXT))
    assert predictions.probabilities.tolist() == pytest.approx(probabilities, rel=1e-4)
    assert not predictions.losses.allclose(studies.predict_text(gpt, TEXT).losses, atol=1e-2)
    with pytest.raises(ConfigError, match="there is no head 5 in block 0"):
        studies.predict_text(gpt, "", heads_off=[(0, 5)])


def test_the_model_is_free_between_two_parts(gpt: Run) -> None:
    idx = torch.tensor([gpt.tokenizer.encode(TEXT)[:T]])
    whole = gpt.model(idx)[0]
    parts = stream_predictions(gpt, TEXT, heads_off=[(0, 0)])
    assert len(next(parts).ranks) == T
    assert torch.equal(gpt.model(idx)[0], whole)
    assert sum(len(part.ranks) for part in parts) == len(TEXT) - 1 - T


def test_equal_tokens_share_the_best_rank() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]]).expand(4, -1)
    assert TokenPredictions.from_logits(logits, torch.arange(4)).ranks.tolist() == [4, 1, 1, 3]


def test_an_unknown_character_is_refused(gpt: Run) -> None:
    with pytest.raises(UnknownCharacterError):
        studies.predict_text(gpt, "to be Ω")

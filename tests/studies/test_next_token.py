"""The candidates of the next token, against a softmax of the model's logits and transformers' filters."""

import math

import pytest
import torch
from lazy_module import LazyModule
from study_runs import KINDS, T, compute_plain_logits, make_study_run

from minigpt import studies
from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import without_heads
from minigpt.studies.next_token import NextTokenDistribution

transformers = LazyModule("transformers")


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run(request.param, tmp_path_factory.mktemp("runs") / request.param)


@pytest.mark.parametrize("text", ["", "t", "to be, or not to be: that"])
def test_the_probabilities_are_those_of_the_model(run: Run, text: str) -> None:
    distribution = studies.next_token_distribution(run, text, temperature=0.7, top_k=9, top_p=0.8)
    logits = compute_plain_logits(run, run.encode_prompt(text)).double()[None]
    assert distribution.probabilities.allclose(torch.softmax(logits[0], dim=-1), atol=1e-5)
    assert studies.next_token_distribution(run, run.encode_prompt(text)).probabilities.equal(distribution.probabilities)
    for warp in (
        transformers.TemperatureLogitsWarper(0.7),
        transformers.TopKLogitsWarper(9),
        transformers.TopPLogitsWarper(0.8),
    ):
        logits = warp(None, logits)
    assert distribution.filtered.allclose(torch.softmax(logits[0], dim=-1), atol=1e-5)


def test_temperature_zero_leaves_the_first_of_the_most_likely_tokens() -> None:
    distribution = NextTokenDistribution.from_logits(torch.tensor([0.0, 2.0, 2.0]), SamplingConfig(temperature=0))
    assert distribution.filtered.tolist() == [0, 1, 0]
    assert distribution.probabilities.tolist() == pytest.approx(
        [x / (1 + 2 * math.e**2) for x in (1, math.e**2, math.e**2)]
    )


def test_entropies_are_in_bits() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    distribution = NextTokenDistribution.from_logits(logits, SamplingConfig(top_k=1))
    assert (distribution.entropy, distribution.filtered_entropy) == (pytest.approx(1.75), 0)


def test_heads_are_off_and_settings_are_checked(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = make_study_run("gpt", tmp_path_factory.mktemp("run"))
    text = "to be, or not to be"
    changed = studies.next_token_distribution(run, text, heads_off=[(1, 0)])
    with without_heads(run.model, [(1, 0)]):
        logits = compute_plain_logits(run, run.encode_prompt(text))
    assert len(text) > T
    assert changed.probabilities.allclose(torch.softmax(logits.double(), dim=-1), atol=1e-5)
    assert not changed.probabilities.allclose(studies.next_token_distribution(run, text).probabilities, atol=1e-3)
    with pytest.raises(ConfigError, match="temperature must be a number at least 0, not -1"):
        studies.next_token_distribution(run, text, temperature=-1)
    with pytest.raises(ConfigError, match="there is no head 9 in block 0"):
        studies.next_token_distribution(run, text, heads_off=[(0, 9)])

"""Tokens with their probabilities, against the tokens of the run's own stream and calls of the model."""

import itertools

import pytest
import torch
from study_runs import KINDS, T, compute_plain_logits, make_study_run

from minigpt import studies
from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import without_heads
from minigpt.studies.token_stream import GeneratedToken

CONFIG = SamplingConfig(max_new_tokens=40, temperature=0.9, top_k=20, top_p=0.95, seed=3)


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run(request.param, tmp_path_factory.mktemp("runs") / request.param)


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run("gpt", tmp_path_factory.mktemp("runs") / "gpt")


@pytest.mark.parametrize("prompt", ["", "to be, or not to be"])
def test_the_tokens_are_those_of_the_runs_own_stream(run: Run, prompt: str) -> None:
    ids = run.encode_prompt(prompt)
    tokens = list(studies.stream_tokens(run, ids, CONFIG))
    assert len(tokens) == 40
    settings = {name: getattr(CONFIG, name) for name in SamplingConfig.names()}
    assert run.tokenizer.decode([token.id for token in tokens]) == "".join(run.stream(prompt, **settings))
    for token in tokens:
        p = torch.softmax(compute_plain_logits(run, ids).double(), dim=-1)
        assert token.probability == pytest.approx(float(p[token.id]), rel=1e-4)
        assert token.rank == 1 + int((p > p[token.id]).sum())
        ids = [*ids, token.id]


def test_a_token_of_stop_ends_the_text_and_is_left_out(gpt: Run) -> None:
    ids = gpt.encode_prompt("")
    tokens = [token.id for token in studies.stream_tokens(gpt, ids, CONFIG)]
    stop = tokens[7]
    until = tokens.index(stop)
    assert [token.id for token in studies.stream_tokens(gpt, ids, CONFIG, stop=[stop])] == tokens[:until]


def test_two_streams_with_other_heads_take_turns_on_one_model(gpt: Run) -> None:
    ids, heads = gpt.encode_prompt("to be"), [(0, 1), (1, 0)]

    def stream(heads_off: list[tuple[int, int]]) -> list[GeneratedToken]:
        return list(studies.stream_tokens(gpt, ids, CONFIG, heads_off=heads_off))

    streams = [studies.stream_tokens(gpt, ids, CONFIG, heads_off=off) for off in (heads, [])]
    both = list(itertools.chain.from_iterable(zip(*streams, strict=True)))
    assert both[::2] == stream(heads)
    assert both[1::2] == stream([])
    assert both[::2] != both[1::2]
    with without_heads(gpt.model, heads):
        probability = torch.softmax(compute_plain_logits(gpt, ids).double(), dim=-1)[both[0].id]
    assert both[0].probability == pytest.approx(float(probability), rel=1e-4)
    assert len(ids) + 40 > T


def test_the_model_is_free_between_two_tokens(gpt: Run) -> None:
    idx = torch.tensor([gpt.encode_prompt("to be")])
    whole = gpt.model(idx)[0]
    stream = studies.stream_tokens(gpt, idx[0].tolist(), CONFIG, heads_off=[(0, 0)])
    next(stream)
    assert torch.equal(gpt.model(idx)[0], whole)


def test_a_missing_head_is_refused_before_the_first_token(gpt: Run) -> None:
    with pytest.raises(ConfigError, match="there is no head 0 in block 7"):
        studies.stream_tokens(gpt, [0], CONFIG, heads_off=[(7, 0)])

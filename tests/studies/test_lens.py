"""The logit lens, against a model that is cut after each block."""

import copy

import pytest
import torch
from study_runs import TRANSFORMERS, WITHOUT_BLOCKS, T, make_study_run

from minigpt import studies
from minigpt.errors import ConfigError
from minigpt.runs.run import Run

TEXT = "to be, or not to be: that"


@pytest.fixture(scope="module", params=TRANSFORMERS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run(request.param, tmp_path_factory.mktemp("runs") / request.param)


def test_the_last_layer_is_the_model_itself(run: Run) -> None:
    lens = studies.logit_lens(run, TEXT)
    assert lens.ids.tolist() == run.tokenizer.encode(TEXT)[-run.config.model.block_size :]
    with torch.no_grad():
        logits, _ = run.model(lens.ids[None])
    assert torch.equal(lens.logits[-1], logits[0])
    assert lens.layers == ["embedding", "block 0", "block 1"]


def test_a_layer_is_the_model_without_the_later_blocks(run: Run) -> None:
    lens = studies.logit_lens(run, TEXT)
    for layer, logits in enumerate(lens.logits):
        cut = copy.deepcopy(run.model)
        cut.blocks = cut.blocks[:layer]
        with torch.no_grad():
            assert logits.allclose(cut(lens.ids[None])[0][0], atol=1e-5)
    assert torch.equal(studies.logit_lens(run, run.tokenizer.encode(TEXT)).logits, lens.logits)
    assert not lens.logits[0].allclose(lens.logits[1], atol=1e-2)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in run.model.modules())


@pytest.mark.parametrize("text", ["", "t"])
def test_one_token_is_enough(run: Run, text: str) -> None:
    lens = studies.logit_lens(run, text)
    assert lens.ids.tolist() == run.encode_prompt(text)[-run.config.model.block_size :]
    assert lens.logits.shape == (3, len(lens.ids), run.tokenizer.vocab_size)


@pytest.mark.parametrize("kind", WITHOUT_BLOCKS)
def test_a_model_without_blocks_is_refused(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = make_study_run(kind, tmp_path_factory.mktemp(kind))
    with pytest.raises(ConfigError, match="this model has no blocks, which the logit lens needs"):
        studies.logit_lens(run, TEXT)
    with pytest.raises(ConfigError, match="this model has no attention heads"):
        studies.attention_maps(run, TEXT)


def test_attention_maps_are_of_the_last_window(run: Run) -> None:
    maps = studies.attention_maps(run, TEXT)
    size = min(run.config.model.block_size, len(run.tokenizer.encode(TEXT)))
    assert maps.shape == (2, 2, size, size)
    assert maps.sum(dim=-1).allclose(torch.ones(2, 2, size), atol=1e-5)
    if size == T:
        assert torch.equal(maps, studies.attention_maps(run, run.tokenizer.encode(TEXT)[-T:]))
    assert studies.attention_maps(run, "").shape[-1] >= 1

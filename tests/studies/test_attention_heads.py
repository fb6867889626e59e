"""Heads that are switched off, against a model whose heads have values of zero."""

import pytest
import torch
from naive_generation import SMALL, create_model

from minigpt.config import ModelConfig
from minigpt.errors import ConfigError
from minigpt.model.gpt import GPT
from minigpt.model.lecture import BigramLanguageModel
from minigpt.studies.attention_heads import without_heads

HEADS = [(0, 1), (2, 0), (2, 1)]
IDX = torch.randint(23, (2, 10), generator=torch.Generator().manual_seed(0))


def create_model_without(config: ModelConfig) -> torch.nn.Module:
    """The same model, with the weights of the values of HEADS set to zero."""
    model = create_model(config)
    D = config.n_embd // config.n_head
    for block, head in HEADS:
        part = model.blocks[block]
        if config.implementation == "lecture":
            part.sa.heads[head].value.weight.data.zero_()
            continue
        is_modern = config.architecture == "modern"
        values = part.attention.value if is_modern else part.attention.qkv
        first = head * D + (0 if is_modern else 2 * config.n_embd)
        values.weight.data[first : first + D] = 0
        if values.bias is not None:
            values.bias.data[first : first + D] = 0
    return model


@pytest.mark.parametrize(
    "settings", [{}, {"implementation": "lecture"}, {"architecture": "modern"}, {"qkv_bias": True}]
)
def test_a_head_that_is_off_is_a_head_whose_values_are_zero(settings: dict) -> None:
    config = ModelConfig(**{**vars(SMALL), **settings})
    model = create_model(config)
    whole = model(IDX)[0]
    with without_heads(model, HEADS):
        changed = model(IDX)[0]
    assert changed.allclose(create_model_without(config)(IDX)[0], atol=1e-5)
    assert not changed.allclose(whole, atol=1e-2)
    assert torch.equal(model(IDX)[0], whole)


def test_the_heads_are_on_again_after_an_error() -> None:
    model = create_model(SMALL)
    whole = model(IDX)[0]
    with pytest.raises(IndexError), without_heads(model, HEADS):
        model(torch.tensor([[23]]))
    assert torch.equal(model(IDX)[0], whole)


@pytest.mark.parametrize("head", [(3, 0), (0, 2), (-1, 0), (0, -1)])
def test_a_head_that_the_model_lacks_is_refused(head: tuple[int, int]) -> None:
    block, number = head
    message = f"there is no head {number} in block {block}: the blocks are 0 to 2, and their heads 0 to 1"
    with pytest.raises(ConfigError, match=message), without_heads(create_model(SMALL), [(0, 0), head]):
        pass


def test_a_model_without_attention_has_no_head_to_switch_off() -> None:
    model = BigramLanguageModel(SMALL)
    with without_heads(model, []):
        assert torch.equal(model(IDX)[0], model.token_embedding_table(IDX))
    with pytest.raises(ConfigError, match="this model has no attention heads"), without_heads(model, [(0, 0)]):
        pass


def test_a_head_that_is_off_stays_off_with_a_cache() -> None:
    from minigpt.generation.engine import decode, prefill

    model = create_model(SMALL)
    assert isinstance(model, GPT)
    with without_heads(model, HEADS):
        window, _ = prefill(model, IDX[:, :6])
        step_by_step = [decode(window, IDX[:, n : n + 1]) for n in range(6, 10)]
        at_once = model(IDX)[0]
    assert torch.stack(step_by_step, dim=1).allclose(at_once[:, 6:], atol=1e-5)

"""Without kernels models stay as they are. These tests pass with the folder minigpt/kernels deleted."""

import pytest
import torch
from naive_generation import SMALL, create_model, require_same

from minigpt.acceleration import (
    accelerate,
    build_decoder,
    choose_training_loops,
    describe_decoder,
    has_kernels,
    restore,
)
from minigpt.config import Config, SamplingConfig
from minigpt.generation.engine import prefill


@pytest.fixture
def kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGPT_KERNELS", "off")


def test_without_kernels_a_model_keeps_its_classes(kernels_off: None) -> None:
    model = create_model(SMALL)
    before = [type(module) for module in model.modules()]
    assert not has_kernels()
    assert accelerate(model, Config(model=SMALL)) == []
    assert choose_training_loops(Config(model=SMALL).override(compiled_loops="on"), "cpu") == "off"
    restore(model)
    assert [type(module) for module in model.modules()] == before


def test_without_kernels_pytorch_decodes(kernels_off: None) -> None:
    model = create_model(SMALL)
    window, _ = prefill(model, torch.zeros(1, 1, dtype=torch.int64))
    assert build_decoder(window, 1000) is None
    assert describe_decoder(model) == "PyTorch"
    require_same(model, torch.zeros(1, 1, dtype=torch.int64), SamplingConfig(max_new_tokens=200, seed=1))

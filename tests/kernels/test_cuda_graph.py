"""The step that a CUDA graph records, on a CPU without the graph, and on a GPU with it."""

import dataclasses

import pytest
import torch
from naive_generation import SMALL, TOLERANCE, create_model, require_same

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.kernels.cuda_graph import StaticCache
from minigpt.model.kv_cache import KVCache

GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("config", [SMALL, GPT2], ids=["lecture", "gpt2"])
def test_a_static_cache_gives_the_logits_of_a_growing_one(config: ModelConfig, rows: int) -> None:
    model, growing = create_model(config), KVCache()
    idx = torch.randint(config.vocab_size, (rows, config.block_size))
    with torch.inference_mode():
        model(idx[:, :5], cache=growing)
        static = StaticCache(growing, config.block_size)
        for n in range(5, config.block_size):
            expected, _ = model(idx[:, n : n + 1], cache=growing)
            static.position.fill_(n)
            logits, _ = model(idx[:, n : n + 1], cache=static)
            assert (logits - expected).abs().max() < TOLERANCE
        assert static.length == growing.length


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_recorded_step_generates_what_naive_cropping_does() -> None:
    model = create_model(SMALL).cuda()
    idx = torch.zeros(3, 1, dtype=torch.int64, device="cuda")
    require_same(model, idx, SamplingConfig(max_new_tokens=60, seed=2))

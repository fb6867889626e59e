"""The decoder that calls PyTorch's operations without modules, against the model itself."""

import dataclasses
from typing import Any

import pytest
import torch
from naive_generation import SMALL, TOLERANCE, create_model, require_same

from minigpt.acceleration import build_decoder
from minigpt.config import ModelConfig, SamplingConfig
from minigpt.finetuning.lora import apply_lora
from minigpt.generation.engine import Sampler, prefill
from minigpt.kernels.decoder_selection import Limits
from minigpt.kernels.functional_decode import FunctionalDecoder
from minigpt.model.quantization import quantize_layers

GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)
EXACT = dataclasses.replace(SMALL, activation="gelu_exact", block_size=1)
MODERN = dataclasses.replace(SMALL, architecture="modern")
NEVER = Limits(start_tokens=2**62)  # for the compiled loops
CONFIG = SamplingConfig(max_new_tokens=50, seed=4)


def build(window: Any, tokens: int) -> Any:
    """Build the decoder that a process chooses before it has started Numba."""
    decoder = FunctionalDecoder(window)
    assert type(build_decoder(window, tokens, NEVER._replace(min_tokens=2**62))) is FunctionalDecoder
    return decoder


@pytest.mark.parametrize("start", [1, 23, 24, 40])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("config", [SMALL, GPT2, EXACT], ids=["lecture", "gpt2", "one token"])
def test_the_text_is_that_of_the_model(config: ModelConfig, rows: int, start: int) -> None:
    idx = torch.randint(23, (rows, start), generator=torch.Generator().manual_seed(start))
    require_same(create_model(config), idx, CONFIG, build)


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
def test_quantized_layers_and_adapters_are_part_of_the_matrices(quantization: Any) -> None:
    model = create_model(SMALL)
    if quantization:
        quantize_layers(model, quantization)
    apply_lora(model, rank=2, dora=True)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter)
    require_same(model.eval(), torch.zeros(1, 1, dtype=torch.int64), CONFIG, build)


def test_the_logits_are_the_models_before_and_after_the_window_moves() -> None:
    model = create_model(GPT2)
    prompt = torch.randint(23, (2, 3), generator=torch.Generator().manual_seed(0))
    window, _ = prefill(model, prompt)
    seen: list[torch.Tensor] = []

    class Log(Sampler):
        def choose(self, logits: torch.Tensor) -> torch.Tensor:
            seen.append(logits)
            return super().choose(logits)

    tokens = list(FunctionalDecoder(window).stream(torch.tensor([5, 6]), 40, Log(CONFIG)))
    text = torch.cat([prompt, torch.tensor([[5], [6]]), torch.stack(tokens, dim=1)], dim=1)
    for n, logits in enumerate(seen):
        expected = model(text[:, max(0, 4 + n - GPT2.block_size) : 4 + n])[0][:, -1]
        torch.testing.assert_close(logits, expected, rtol=TOLERANCE, atol=10 * TOLERANCE)
    assert window.idx is not None
    assert window.idx.equal(text[:, -1 - GPT2.block_size : -1])  # all but the last token, which was not read


def test_a_model_with_a_hook_or_of_another_kind_decodes_by_its_own_forward() -> None:
    hooked = create_model(SMALL)
    hooked.blocks[0].register_forward_hook(lambda *_: None)
    for model in (hooked, create_model(SMALL).double(), create_model(MODERN)):
        window, _ = prefill(model, torch.zeros(1, 1, dtype=torch.int64))
        assert build_decoder(window, 20, NEVER) is None
    window, _ = prefill(create_model(SMALL), torch.zeros(1, 1, dtype=torch.int64))
    assert build_decoder(window, 0, NEVER) is None
    assert build_decoder(window, 20, NEVER._replace(max_functional_weights=100)) is None

"""Text written the naive way, and a comparison of the engine with it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from minigpt.acceleration import build_decoder
from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation.engine import Sampler, choose_next_token, generate
from minigpt.model import TrainedModel, build

SMALL = ModelConfig(vocab_size=23, block_size=24, n_embd=16, n_head=2, n_layer=3)
TOLERANCE = 1e-5


def create_model(config: ModelConfig) -> Any:
    """A model in evaluation mode whose weights are large enough for every part to matter."""
    torch.manual_seed(1)
    model = build(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3, mean=1.0 if ".ln" in name and "weight" in name else 0.0)
    return model.eval()


def generate_naively(
    model: TrainedModel, idx: torch.Tensor, config: SamplingConfig
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield the tokens (B,) of each step, their logits (B, V) and random numbers (B,), as the lecture has it."""
    sampler, random_numbers = Sampler(config), Sampler(config)
    for _ in range(config.max_new_tokens):
        with torch.inference_mode():
            logits = model(idx[:, -model.config.block_size :])[0][:, -1]
        chosen = sampler.choose(logits)
        yield chosen, logits, random_numbers.draw_uniforms(len(idx))
        idx = torch.cat([idx, chosen[:, None]], dim=1)


def require_same(model: TrainedModel, idx: torch.Tensor, config: SamplingConfig, *decoders: Callable[..., Any]) -> None:
    """Require the naive text of every way to build a decoder, by default of `build_decoder`."""
    naive = [*generate_naively(model, idx, config)]
    for decoder in decoders or [build_decoder]:
        require_naive(generate(model, idx, config, build_decoder=decoder), naive, config)


def require_naive(
    found: torch.Tensor, naive: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], config: SamplingConfig
) -> None:
    """Require the same tokens; at the first difference of a row, tokens between which only rounding decides."""
    assert found.shape == (len(found), config.max_new_tokens)
    alike = torch.ones(len(found), dtype=torch.bool)
    for n, (chosen, logits, uniforms) in enumerate(naive):
        for row in (alike & (chosen != found[:, n])).nonzero().flatten().tolist():
            own = logits[row : row + 1]
            if config.temperature == 0:
                near = (own[0] > own.max() - TOLERANCE).nonzero().flatten().tolist()
            else:
                shifted = (uniforms[row : row + 1] + torch.tensor([[-TOLERANCE], [TOLERANCE]])).clamp(0, 1 - TOLERANCE)
                near = [int(choose_next_token(own, config, each)) for each in shifted]
            assert int(found[row, n]) in near, f"token {n} of row {row}"
            alike[row] = False
        if not alike.any():
            return

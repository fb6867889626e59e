"""The generation engine: token ids in, token ids out. It never sees a string."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minigpt.config import SamplingConfig
from minigpt.model import LanguageModel
from minigpt.sampling.filters import apply_temperature, draw, keep_top_k, keep_top_p


def next_token(logits: Tensor, config: SamplingConfig, uniforms: Tensor) -> Tensor:
    """The next token of each row: (B, V) logits and (B,) random numbers in [0, 1) to (B,) ids."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.double() - logits.amax(dim=-1, keepdim=True)  # so that no temperature overflows
    logits = apply_temperature(logits, config.temperature)
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    return draw(logits, uniforms)


@torch.inference_mode()  # which torch lifts at each yield, so that the caller's own code is not in it
def stream(model: LanguageModel, idx: Tensor, config: SamplingConfig) -> Iterator[Tensor]:
    """Continue each row of `idx` (B, T), T at least 1, and yield the new tokens (B,) one step at a time.

    At every step the model sees the last block_size tokens. The random numbers come from the
    config's seed and the CPU, whatever device the model is on. Dropout is off meanwhile.
    """
    generator = torch.Generator()
    if config.seed is None:
        generator.seed()
    else:
        generator.manual_seed(config.seed)
    block_size = model.config.block_size
    was_training = model.training
    model.eval()
    try:
        for _ in range(config.max_new_tokens):
            context = idx[:, -block_size:]  # (B, T) -> (B, at most block_size)
            logits, _ = model(context)
            uniforms = torch.rand(len(idx), generator=generator, dtype=torch.float64)
            chosen = next_token(logits[:, -1, :].cpu(), config, uniforms)  # (B, V) -> (B,)
            yield chosen
            idx = torch.cat([context, chosen[:, None].to(idx.device)], dim=1)
    finally:
        model.train(was_training)


def generate(model: LanguageModel, idx: Tensor, config: SamplingConfig) -> Tensor:
    """The max_new_tokens tokens that follow each row of `idx` (B, T): (B, max_new_tokens)."""
    return torch.stack(list(stream(model, idx, config)), dim=1)

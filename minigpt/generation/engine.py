"""The generation engine: token ids in, token ids out. It never sees a string.

Generation has two phases: `prefill` reads the whole prompt in one forward pass, and `decode` reads one new token at a
time. `stream` and `generate` do both and sample the tokens.

Shapes: B rows that are generated together, T tokens of the prompt, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from minigpt.acceleration import build_decoder
from minigpt.config import SamplingConfig
from minigpt.generation.filters import filter_logits, sample_token
from minigpt.model import LanguageModel
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import ContextWindow, KVCache
from minigpt.model.language_model import evaluation_mode
from minigpt.model.modern import Modern

STOPPED = -1  # stands for a token in a row that has already ended


class Sampler:
    """Chooses next tokens from logits, with random numbers of its own.

    The random numbers come from the config's seed and the CPU, whatever the model's device. So every way to compute
    the same logits chooses the same tokens.
    """

    def __init__(self, config: SamplingConfig) -> None:
        self.config = config
        self._generator = torch.Generator()
        if config.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(config.seed)

    def draw_uniforms(self, count: int) -> Tensor:
        """Draw random numbers in [0, 1): (count,), float64."""
        return torch.rand(count, generator=self._generator, dtype=torch.float64)

    def choose(self, logits: Tensor) -> Tensor:
        """Choose the next token of each row by its logits (B, V): (B,), int64, on the CPU."""
        return choose_next_token(logits.cpu(), self.config, self.draw_uniforms(len(logits)))


def choose_next_token(logits: Tensor, config: SamplingConfig, uniforms: Tensor) -> Tensor:
    """Choose the next token of each row.

    Args:
        logits: (B, V), on the CPU.
        config: temperature, top-k and top-p, which apply in this order.
        uniforms: a random number in [0, 1) for each row, (B,), float64.

    Returns:
        Token ids (B,), int64.
    """
    return sample_token(filter_logits(logits, config), uniforms)


def prefill(model: LanguageModel, idx: Tensor) -> tuple[ContextWindow, Tensor]:
    """Read a prompt.

    Args:
        model: any model. GPT and Modern get a KV cache; the others read their whole window again for each token.
        idx: the prompt (B, T), int64, with T at least 1.

    Returns:
        The context window, and the logits (B, V) of the next token.
    """
    window = ContextWindow(model, KVCache() if isinstance(model, GPT | Modern) else None)
    return window, decode(window, idx)


def decode(window: ContextWindow, tokens: Tensor) -> Tensor:
    """Read more tokens (B, T) and return the logits (B, V) of the next one."""
    with torch.inference_mode():
        return window.read(tokens)


def stream(
    model: LanguageModel,
    idx: Tensor,
    config: SamplingConfig,
    stop: Collection[int] = (),
    build_decoder: Callable[[ContextWindow, int], Any] = build_decoder,
) -> Iterator[Tensor]:
    """Continue each row of a prompt, one token at a time, with dropout off.

    At every step the model sees the last block_size tokens.

    Args:
        model: the model.
        idx: the prompt (B, T), int64, with T at least 1.
        config: how to sample, and how many tokens.
        stop: tokens that end a row.
        build_decoder: returns a compiled decoder for a window and a number of tokens, or None.

    Yields:
        The next tokens (B,), int64. After a row produces a token of `stop`, it yields STOPPED. The stream ends when
        all rows have stopped.
    """
    tokens = _sample_tokens(model, idx, config, build_decoder)
    if not stop:
        yield from tokens
        return
    alive, ends = torch.ones(len(idx), dtype=torch.bool), torch.tensor(sorted(stop), dtype=torch.int64)
    for token in tokens:
        alive &= ~torch.isin(token, ends)
        if not alive.any():
            return
        yield token.where(alive, STOPPED)


def stream_with_logits(model: LanguageModel, idx: Tensor, config: SamplingConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue each row of a prompt as `stream` does, without a compiled decoder, and show how each token was chosen.

    Args:
        model: the model.
        idx: the prompt (B, T), int64, with T at least 1.
        config: how to sample, and how many tokens.

    Yields:
        The next tokens (B,), int64, which are those of `stream`; and the logits (B, V) from which they were chosen.
    """
    sampler = Sampler(config)
    with evaluation_mode(model):  # never around a yield: the caller may train meanwhile, or stop reading
        window, logits = prefill(model, idx)
    for left in reversed(range(config.max_new_tokens)):
        token = sampler.choose(logits)
        yield token, logits
        if left:
            with evaluation_mode(model):
                logits = decode(window, token[:, None].to(idx.device))


def generate(
    model: LanguageModel,
    idx: Tensor,
    config: SamplingConfig,
    stop: Collection[int] = (),
    build_decoder: Callable[[ContextWindow, int], Any] = build_decoder,
) -> Tensor:
    """Return the tokens of `stream`: (B, N), where N is max_new_tokens, or less if all rows stop."""
    tokens = list(stream(model, idx, config, stop, build_decoder))
    return torch.stack(tokens, dim=1) if tokens else torch.empty(len(idx), 0, dtype=torch.int64)


def _sample_tokens(
    model: LanguageModel, idx: Tensor, config: SamplingConfig, build_decoder: Callable[[ContextWindow, int], Any]
) -> Iterator[Tensor]:
    """Yield max_new_tokens tokens (B,): the first after the prefill, the others by the decoder or by `decode`."""
    sampler = Sampler(config)
    with evaluation_mode(model):  # never around a yield: the caller may train meanwhile, or stop reading
        window, logits = prefill(model, idx)
        left = config.max_new_tokens - 1
        decoder = build_decoder(window, left)
    token = sampler.choose(logits)
    yield token
    if decoder is not None:
        for next_one in decoder.stream(token, left, sampler):  # it has no dropout, whatever the model's mode
            yield next_one
            left, token = left - 1, next_one
    for _ in range(left):
        with evaluation_mode(model):
            logits = decode(window, token[:, None].to(idx.device))
        token = sampler.choose(logits)
        yield token

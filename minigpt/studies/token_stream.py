"""Generate tokens one by one, each with the probability and the rank that the model gave it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from minigpt.config import SamplingConfig
from minigpt.generation.engine import stream_with_logits
from minigpt.model.language_model import get_device
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import require_heads, without_heads
from minigpt.studies.token_predictions import TokenPredictions
from minigpt.system.device import limit_threads


@dataclass(frozen=True)
class GeneratedToken:
    """A token that was sampled.

    Attributes:
        id: the token id.
        probability: at temperature 1, before top-k and top-p.
        rank: 1 for the most likely token.
    """

    id: int
    probability: float
    rank: int


def stream_tokens(
    run: Run,
    ids: list[int],
    config: SamplingConfig,
    stop: Collection[int] = (),
    heads_off: Collection[tuple[int, int]] = (),
) -> Iterator[GeneratedToken]:
    """Generate the tokens of `Run.stream_from_ids`, with their probabilities.

    Each token is one forward pass of the model, without compiled loops. The model may be used for something else
    between two tokens.

    Args:
        run: the run.
        ids: the prompt, at least one token.
        config: how to sample, and how many tokens.
        stop: tokens that end the text. They are not returned.
        heads_off: attention heads whose output is zero, as (block, head) from 0.

    Raises:
        ConfigError: the model does not have one of the heads.
    """
    require_heads(run.model, heads_off)
    return _stream_tokens(run, ids, config, stop, heads_off)  # a second generator: the error comes at once


def _stream_tokens(
    run: Run,
    ids: list[int],
    config: SamplingConfig,
    stop: Collection[int],
    heads_off: Collection[tuple[int, int]],
) -> Iterator[GeneratedToken]:
    """Yield the tokens."""
    idx = torch.tensor([ids], device=get_device(run.model))  # (1, T)
    steps = stream_with_logits(run.model, idx, config)
    while True:
        # Never around the yield: meanwhile the caller may use the model with other heads.
        with limit_threads(run.config.model.block_size * run.config.model.n_embd), without_heads(run.model, heads_off):
            step = next(steps, None)
        if step is None:
            return
        token, logits = step  # (1,), (1, V)
        if int(token) in stop:
            return
        prediction = TokenPredictions.from_logits(logits.cpu(), token)
        yield GeneratedToken(int(token), float(prediction.probabilities), int(prediction.ranks))

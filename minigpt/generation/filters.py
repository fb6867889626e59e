"""From logits to a token: small pure functions over logits (B, V).

The filters set the logits of excluded tokens to minus infinity, and `filter_logits` applies them as a SamplingConfig
says. `sample_token` chooses one of the other tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import SamplingConfig


def filter_logits(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Apply temperature, top-k and top-p, in this order.

    Args:
        logits: (B, V).
        config: the temperature, top-k and top-p. Temperature 0 keeps the most likely token only.

    Returns:
        The filtered logits (B, V), float64. Their softmax is the distribution that the next token is sampled from.
    """
    logits = logits.double() - logits.amax(dim=-1, keepdim=True)  # the largest is 0: no temperature can overflow
    if config.temperature == 0:
        return keep_most_likely(logits)
    logits = apply_temperature(logits, config.temperature)
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    return logits


def keep_most_likely(logits: Tensor) -> Tensor:
    """Keep the largest logit of each row of (B, V); of several equal ones the first."""
    best = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
    return torch.full_like(logits, float("-inf")).scatter(-1, best, logits.gather(-1, best))


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits by the temperature, above 0: below 1 sharpens the distribution, above 1 flattens it."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row of (B, V), and those equal to the smallest of them."""
    kth = torch.topk(logits, min(k, logits.shape[-1])).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probabilities add up to p or more.

    This is nucleus sampling (Holtzman et al. 2020). The most likely token always stays.
    """
    ascending, order = logits.sort(dim=-1, stable=True)  # (B, V)
    tail = F.softmax(ascending, dim=-1).cumsum(dim=-1) <= 1 - p  # the least likely, which add up to 1 - p at most
    tail[:, -1] = False
    return logits.masked_fill(tail.scatter(-1, order, tail), float("-inf"))


def sample_token(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Sample a token in each row, with given random numbers.

    `torch.multinomial` samples with random numbers of its own. With given ones, equal logits always lead to the same
    tokens, in whatever way they were computed.

    Args:
        logits: (B, V).
        uniforms: a random number in [0, 1) for each row, (B,), float64.

    Returns:
        The first token of each row whose cumulative probability is larger than the random number: (B,), int64.
    """
    cumulative = F.softmax(logits.double(), dim=-1).cumsum(dim=-1)  # (B, V)
    total = cumulative[:, -1:]  # (B, 1), one but for rounding
    chosen = (cumulative <= uniforms[:, None] * total).sum(dim=-1)  # (B,)
    last_possible = (cumulative < total).sum(dim=-1)  # rounding must not lead past the last token with a probability
    return torch.minimum(chosen, last_possible)

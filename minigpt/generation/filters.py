"""From logits to a token: small pure functions over logits (B, V).

The filters set the logits of excluded tokens to minus infinity. `sample_token` chooses one of the others.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """Sample a token in each row by inverting the cumulative distribution.

    `torch.multinomial` samples from the same distribution with its own random numbers. Given random numbers make every
    way to compute the same logits choose the same tokens.

    Args:
        logits: (B, V).
        uniforms: a random number in [0, 1) for each row, (B,), float64.

    Returns:
        The first token of each row at which the cumulative probability exceeds the random number: (B,), int64.
    """
    cumulative = F.softmax(logits.double(), dim=-1).cumsum(dim=-1)  # (B, V)
    total = cumulative[:, -1:]  # (B, 1), one but for rounding
    chosen = (cumulative <= uniforms[:, None] * total).sum(dim=-1)  # (B,)
    last_possible = (cumulative < total).sum(dim=-1)  # rounding must not lead past the last token with a probability
    return torch.minimum(chosen, last_possible)

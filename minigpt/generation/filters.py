"""From logits to a choice: small pure functions over (B, V) tensors.

The filters push the logits of tokens that may not be chosen to minus infinity; `draw` chooses.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits by the temperature, above 0: below 1 sharpens the distribution, above 1 flattens it."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row, and any that equal the smallest of them."""
    kth = torch.topk(logits, min(k, logits.shape[-1])).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probabilities add up to p or more.

    This is nucleus sampling (Holtzman et al. 2020). The likeliest token always stays.
    """
    ascending, order = logits.sort(dim=-1, stable=True)  # (B, V)
    tail = F.softmax(ascending, dim=-1).cumsum(dim=-1) <= 1 - p  # the unlikely, as long as they add up to 1 - p
    tail[:, -1] = False
    return logits.masked_fill(tail.scatter(-1, order, tail), float("-inf"))


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Choose a token in each row of the (B, V) logits by inverting the cumulative distribution; (B,) ids.

    `uniforms` (B,) are random numbers in [0, 1): the token chosen is the first at which the cumulative
    probability passes the row's number. The lecture's `torch.multinomial` draws from the same distribution,
    but with numbers of its own; given ones make every way to the same logits choose alike.
    """
    cumulative = F.softmax(logits.double(), dim=-1).cumsum(dim=-1)  # (B, V)
    total = cumulative[:, -1:]  # (B, 1), one but for rounding
    chosen = (cumulative <= uniforms[:, None] * total).sum(dim=-1)  # (B,)
    last_possible = (cumulative < total).sum(dim=-1)  # rounding must not lead past the last token of any weight
    return torch.minimum(chosen, last_possible)

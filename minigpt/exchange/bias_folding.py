"""Move what GPT-2's format has no place for into weights that it has: the last layer's bias, and constant logits."""

import torch
from torch import Tensor

from minigpt.errors import ExchangeError

MIN_GAIN = 1e-3  # a smaller gain of the last layer norm makes the new weights too large for float32
CONSTANT_LOGIT = -100.0  # of a token that is never written: its probability is below 1e-40
_SHIFT = 1.0  # t in the proof below


def fold_head_bias(head: Tensor, bias: Tensor, gain: Tensor, norm_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return a last layer without bias, and a layer norm before it, that together give the same logits.

    The proof. Layer norm makes y = g * n + b, where the numbers of n sum to zero. The logit of token v is
    W_v · y + c_v. Take b' = b + t * g and W'_v = W_v + a_v / g, with a number t and a number a_v for each token. Then

        W'_v · (g * n + b') = W_v · (g * n + b) + t * (W_v · g) + a_v * (sum(n) + sum(b / g) + t * C)

    and sum(n) is 0. So the logits are the same if a_v = (c_v - t * (W_v · g)) / (sum(b / g) + t * C).

    Args:
        head: the weights W of the last layer, (V, C).
        bias: its bias c, (V,).
        gain: the gain g of the layer norm before it, (C,).
        norm_bias: the bias b of that layer norm, (C,).

    Returns:
        The new head W' (V, C) and the layer norm's new bias b' (C,), in the dtype of `head`.

    Raises:
        ExchangeError: a gain is near zero, so that the division is not possible.
    """
    smallest = gain.abs().min().item()
    if smallest < MIN_GAIN:
        raise ExchangeError(
            f"the last layer has a bias, and the layer norm before it a gain of {smallest:.1g}, so the bias cannot be "
            f"moved: the smallest gain must be at least {MIN_GAIN:g}; train with --tied-head"
        )
    W, c, g, b = (tensor.double() for tensor in (head, bias, gain, norm_bias))
    quotient = (b / g).sum()
    t = _SHIFT if quotient >= 0 else -_SHIFT  # with the sign of the quotient, the denominator is at least C
    a = (c - t * (W @ g)) / (quotient + t * len(g))  # (V,)
    return (W + a[:, None] / g).to(head.dtype), (b + t * g).to(norm_bias.dtype)


def append_constant_token(head: Tensor, bias: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Add a token whose logit is always -100, so that it is never written. Its embedding is the mean of all others.

    Args:
        head: the weights of the last layer, (V, C).
        bias: its bias, (V,).
        embedding: the embeddings of the tokens, (V, C).

    Returns:
        The same with one more row each.
    """
    head = torch.cat([head, head.new_zeros(1, head.shape[1])])
    bias = torch.cat([bias, bias.new_full((1,), CONSTANT_LOGIT)])
    return head, bias, torch.cat([embedding, embedding.mean(dim=0, keepdim=True)])

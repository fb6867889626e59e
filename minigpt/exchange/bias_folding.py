"""Move what GPT-2's format has no place for into weights that it has: the last layer's bias, and constant logits."""

import torch
from torch import Tensor

from minigpt.errors import ExchangeError
from minigpt.model.gpt import GPT

MIN_GAIN = 1e-3  # a smaller gain of the last layer norm makes the new weights too large for float32
CONSTANT_LOGIT = -100.0  # a token with this logit is never written: its probability is below 1e-40
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
            f"the layer norm before the last layer has a gain of {smallest:.1g}, so the bias cannot be moved: the "
            f"smallest gain must be at least {MIN_GAIN:g}; train again with another --seed"
        )
    W, c, g, b = (tensor.double() for tensor in (head, bias, gain, norm_bias))
    quotient = (b / g).sum()
    t = _SHIFT if quotient >= 0 else -_SHIFT  # t has the quotient's sign, so the denominator is at least C
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


def has_head_bias(model: GPT) -> bool:
    """Return True if the last layer has a bias that is not zero."""
    return model.lm_head is not None and bool(model.lm_head.bias.any())


def fold_head(model: GPT, add_constant_token: bool) -> dict[str, Tensor]:
    """Return an untied head without bias, the layer norm's bias before it, and the embedding, by GPT-2's names.

    Args:
        model: the model.
        add_constant_token: whether to add a token that is never written.

    Raises:
        ExchangeError: a gain of the layer norm is near zero.
    """
    embedding = model.token_embedding_table.weight.detach()
    head, bias = embedding, embedding.new_zeros(len(embedding))
    if model.lm_head is not None:
        head, bias = model.lm_head.weight.detach(), model.lm_head.bias.detach()
    if add_constant_token:
        head, bias, embedding = append_constant_token(head, bias, embedding)
    head, norm_bias = fold_head_bias(head, bias, model.ln_f.weight.detach(), model.ln_f.bias.detach())
    return {"lm_head.weight": head, "ln_f.bias": norm_bias, "wte.weight": embedding}

"""A blend of two models: p = (1 - w) p_transformer + w p_ngram. The weight w is fitted on held-out text."""

import math

import torch
from torch import Tensor

STEPS = 200  # the grid of weights: half a percent apart, because the loss is flat around the best weight


def blend_losses(transformer: Tensor, ngram: Tensor, weight: float) -> Tensor:
    """Compute the losses of the blend from the two models' losses of the same predictions.

    Args:
        transformer: losses in nats (N,).
        ngram: losses in nats (N,).
        weight: the n-gram model's weight, from 0 to 1.

    Returns:
        Losses in nats (N,).
    """
    if weight == 0:
        return transformer
    if weight == 1:
        return ngram
    return -torch.logaddexp(math.log(1 - weight) - transformer, math.log(weight) - ngram)


def find_best_weight(transformer: Tensor, ngram: Tensor) -> float:
    """Return the n-gram model's weight at which the blend's mean loss is lowest, from losses (N,) in nats."""
    return min((i / STEPS for i in range(STEPS + 1)), key=lambda w: blend_losses(transformer, ngram, w).mean().item())

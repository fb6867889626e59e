"""How good a model is: its mean loss over token ids, measured without training it."""

import math

import torch
from torch import Tensor

from minigpt.model import LanguageModel

TOKENS_A_BATCH = 4096  # few large batches; much larger ones fall out of the processor's cache


@torch.inference_mode()
def mean_loss(model: LanguageModel, x: Tensor, y: Tensor) -> float:
    """Mean loss in nats of predicting y from x, both (N, T), in few large batches, dropout off."""
    device = next(model.parameters()).device
    windows_a_batch = max(1, TOKENS_A_BATCH // x.shape[1])
    was_training = model.training
    model.eval()
    try:
        total = 0.0
        for xb, yb in zip(x.split(windows_a_batch), y.split(windows_a_batch), strict=True):
            _, loss = model(xb.to(device), yb.to(device))
            total += loss.item() * len(xb)
    finally:
        model.train(was_training)
    return total / len(x)


def exact_loss(model: LanguageModel, ids: Tensor) -> float:
    """The exact loss of a text: the mean, in nats, over every next-token prediction in it, each made once.

    The N ids (N at least 2) are cut into non-overlapping windows of block_size, the last one shorter;
    each of the N - 1 tokens after the first is predicted once, from those before it in its window.
    """
    T = model.config.block_size
    x, y = ids[:-1], ids[1:]  # (N - 1,)
    whole = len(x) // T * T
    parts = [(x[:whole].view(-1, T), y[:whole].view(-1, T)), (x[None, whole:], y[None, whole:])]
    return sum(mean_loss(model, a, b) * a.numel() for a, b in parts if a.numel()) / len(x)


def bits(nats: float) -> float:
    """A loss in nats as bits: per character, where a token is a character."""
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """A loss in nats as a perplexity: among how many equally likely tokens one would be as unsure."""
    return math.exp(nats) if nats < 700 else math.inf

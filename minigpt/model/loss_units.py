"""A loss in other units than nats. This module does not import PyTorch."""

import math


def nats_to_bits(nats: float) -> float:
    """Convert a loss in nats to bits."""
    return nats / math.log(2)


def nats_to_perplexity(nats: float) -> float:
    """Convert a loss in nats to a perplexity: the number of equally likely tokens with the same loss."""
    return math.exp(nats) if nats < 700 else math.inf

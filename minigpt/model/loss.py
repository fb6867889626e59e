"""How good a model is: its mean loss over token ids, measured without training it."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model import LanguageModel

UNCOUNTED = -100  # a target that no loss counts: PyTorch's cross_entropy leaves it out
TOKENS_A_BATCH = 4096  # few large batches; much larger ones fall out of the processor's cache
LOGITS_A_BATCH = 2**25  # fewer tokens where each has tens of thousands of logits
TOKENS_A_READING = 2**18  # of ids that are read from files, so that memory stays flat
MOST_TOKENS = 10_000_000  # predictions of a corpus by which a model is judged: the mean is sure to three digits then


class Ids(Protocol):
    """Token ids that are measured: a tensor, or anything of which a stretch can be had."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, stretch: slice, /) -> Any:
        """A stretch of them, as a tensor or an array, int64."""


@torch.no_grad()  # not inference_mode, in which parts of a model cannot be put together
def window_losses(model: LanguageModel, x: Tensor, y: Tensor) -> Tensor:
    """The loss in nats of each prediction of y from x, both (N, T): (N, T) on the CPU. Dropout is off meanwhile."""
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    windows_a_batch = max(1, min(TOKENS_A_BATCH, LOGITS_A_BATCH // model.config.vocab_size) // x.shape[1])
    was_training = model.training
    model.eval()
    try:
        losses = []
        for xb, yb in zip(x.split(windows_a_batch), y.split(windows_a_batch), strict=True):
            logits, _ = model(xb.to(device))  # (B, T, V)
            flat = F.cross_entropy(logits.flatten(0, 1), yb.to(device).flatten(), reduction="none")  # (B * T)
            losses.append(flat.view(xb.shape).cpu())
    finally:
        model.train(was_training)
    return torch.cat(losses)


def mean_loss(model: LanguageModel, x: Tensor, y: Tensor) -> float:
    """Mean loss in nats of predicting y from x, both (N, T), in few large batches, dropout off; UNCOUNTED left out."""
    return window_losses(model, x, y)[y != UNCOUNTED].double().mean().item()


def token_losses(model: LanguageModel, ids: Tensor) -> Tensor:
    """The loss in nats of every next-token prediction in a text, each made once: (N - 1,).

    The N ids (N at least 2) are cut into non-overlapping windows of block_size, the last one shorter;
    each of the N - 1 tokens after the first is predicted once, from those before it in its window.
    """
    T = model.config.block_size
    x, y = ids[:-1], ids[1:]  # (N - 1,)
    whole = len(x) // T * T
    parts = [(x[:whole].view(-1, T), y[:whole].view(-1, T)), (x[None, whole:], y[None, whole:])]
    return torch.cat([window_losses(model, a, b).flatten() for a, b in parts if a.numel()])


def exact_loss(model: LanguageModel, ids: Ids, most: int | None = None) -> float:
    """The exact loss of a text: the mean over its `token_losses`, or over those of `predictions`."""
    total, count = 0.0, 0
    for x, y in predictions(ids, model.config.block_size, most):
        losses = window_losses(model, x, y)
        total += losses.double().sum().item()
        count += losses.numel()
    return total / count


def predictions(ids: Ids, block_size: int, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """What `token_losses` predicts from what, in windows as there, some thousand tokens at a time: x and y, (N, T).

    If the text has more predictions than `most`, windows evenly spread over it that make at most so many, at least one.
    """
    count, T = len(ids) - 1, block_size
    if most is None or count <= most:
        starts: Sequence[int] = range(0, count // T * T, T)
    else:
        windows, chosen = count // T, max(1, most // T)
        starts = [n * windows // chosen * T for n in range(chosen)]
    at_once = max(1, TOKENS_A_READING // T)
    for n in range(0, len(starts), at_once):
        rows = torch.stack([torch.as_tensor(ids[s : s + T + 1]) for s in starts[n : n + at_once]])  # (N, T + 1)
        yield rows[:, :-1], rows[:, 1:]
    if len(starts) * T < count and (most is None or count <= most):
        rest = torch.as_tensor(ids[len(starts) * T :])[None]
        yield rest[:, :-1], rest[:, 1:]


def bits(nats: float) -> float:
    """A loss in nats as bits: per character, where a token is a character."""
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """A loss in nats as a perplexity: among how many equally likely tokens one would be as unsure."""
    return math.exp(nats) if nats < 700 else math.inf

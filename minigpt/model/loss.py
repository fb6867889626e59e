"""Measure how well a model predicts: its mean loss over token ids, without training it."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model.language_model import LanguageModel, evaluation_mode, get_device

IGNORE_INDEX = -100  # a target that does not count, as in PyTorch's cross_entropy
TOKENS_PER_BATCH = 4096  # much larger batches do not fit in the processor's cache
LOGITS_PER_BATCH = 2**25  # limits a batch where the vocabulary has tens of thousands of tokens
TOKENS_PER_READ = 2**18  # tokens read from files at a time, so that a large corpus needs little memory
MAX_EVALUATED_TOKENS = 10_000_000  # the mean of this many predictions is exact to three digits


class TokenIds(Protocol):
    """A sequence of token ids that can be sliced: a tensor, an array or a file."""

    def __len__(self) -> int:
        """The number of tokens."""

    def __getitem__(self, stretch: slice, /) -> Any:
        """Return a slice as a tensor or an array, int64."""


def count_windows_per_batch(model: LanguageModel, T: int) -> int:
    """Return how many windows of T tokens a model reads at once: as many as are fast, and their logits small enough."""
    return max(1, min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // model.config.vocab_size) // T)


@torch.no_grad()  # inference_mode would not work: FSDP gathers its parameters during forward
def _compute_window_losses(model: LanguageModel, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss in nats of each prediction of y from x, both (N, T), as (N, T) on the CPU; dropout is off."""
    device = get_device(model)
    windows_per_batch = count_windows_per_batch(model, x.shape[1])
    losses = []
    with evaluation_mode(model):
        for xb, yb in zip(x.split(windows_per_batch), y.split(windows_per_batch), strict=True):
            logits, _ = model(xb.to(device))  # (B, T, V)
            flat = F.cross_entropy(logits.flatten(0, 1), yb.to(device).flatten(), reduction="none")  # (B * T)
            losses.append(flat.view(xb.shape).cpu())
    return torch.cat(losses)


def compute_mean_loss(model: LanguageModel, x: Tensor, y: Tensor) -> float:
    """Return the mean loss of predicting y from x. Dropout is off.

    Args:
        model: the model that predicts.
        x: token ids (N, T), int64.
        y: the target of each position, (N, T), int64. IGNORE_INDEX marks targets that do not count.

    Returns:
        The mean loss in nats over the targets that count.
    """
    return _compute_window_losses(model, x, y)[y != IGNORE_INDEX].double().mean().item()


def compute_token_losses(model: LanguageModel, ids: Tensor) -> Tensor:
    """Return the loss of every token of a text, each predicted once.

    The text is cut into windows of block_size that do not overlap; the last window may be shorter. Each token
    is predicted from the tokens before it in its window.

    Args:
        model: the model that predicts.
        ids: the N token ids of the text, N at least 2.

    Returns:
        The losses in nats of the N - 1 tokens after the first, (N - 1,), float32.
    """
    T = model.config.block_size
    x, y = ids[:-1], ids[1:]  # (N - 1,)
    whole = len(x) // T * T
    parts = [(x[:whole].view(-1, T), y[:whole].view(-1, T)), (x[None, whole:], y[None, whole:])]
    return torch.cat([_compute_window_losses(model, a, b).flatten() for a, b in parts if a.numel()])


def compute_exact_loss(model: LanguageModel, ids: TokenIds, max_predictions: int | None = None) -> float:
    """Return the mean loss of a text: each token is predicted once.

    Args:
        model: the model that predicts.
        ids: the token ids of the text, at least 2.
        max_predictions: the largest number of predictions. A longer text is measured on evenly spread windows.

    Returns:
        The mean loss in nats per token.
    """
    total, count = 0.0, 0
    for x, y in split_into_windows(ids, model.config.block_size, max_predictions):
        losses = _compute_window_losses(model, x, y)
        total += losses.double().sum().item()
        count += losses.numel()
    return total / count


def split_into_windows(
    ids: TokenIds, block_size: int, max_predictions: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a text into the windows in which its loss is measured.

    Args:
        ids: the token ids of the text, at least 2.
        block_size: the length T of a window. The last window may be shorter.
        max_predictions: the largest number of predictions. A longer text gives as many evenly spread windows as
            fit into it, and at least one.

    Yields:
        Inputs x and targets y, (N, T) each, int64, with about TOKENS_PER_READ tokens.
    """
    count, T = len(ids) - 1, block_size
    if max_predictions is None or count <= max_predictions:
        starts: Sequence[int] = range(0, count // T * T, T)
    else:
        windows, chosen = count // T, max(1, max_predictions // T)
        starts = [n * windows // chosen * T for n in range(chosen)]
    windows_per_read = max(1, TOKENS_PER_READ // T)
    for n in range(0, len(starts), windows_per_read):
        rows = torch.stack([torch.as_tensor(ids[s : s + T + 1]) for s in starts[n : n + windows_per_read]])
        yield rows[:, :-1], rows[:, 1:]  # (N, T) each
    if len(starts) * T < count and (max_predictions is None or count <= max_predictions):
        rest = torch.as_tensor(ids[len(starts) * T :])[None]
        yield rest[:, :-1], rest[:, 1:]

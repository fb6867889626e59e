"""Measure how well a model predicts: its mean loss over token ids, without training it."""

import functools
import itertools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model.language_model import LanguageModel, evaluation_mode, get_device
from minigpt.system.device import limit_threads
from minigpt.system.thread_map import map_in_threads

IGNORE_INDEX = -100  # a target that does not count, as in PyTorch's cross_entropy
TOKENS_PER_BATCH = 4096  # much larger batches do not fit in the processor's cache
LOGITS_PER_BATCH = 2**25  # limits a batch where the vocabulary has tens of thousands of tokens
TOKENS_PER_READ = 2**16  # tokens read from files at a time, so that a large corpus needs little memory
MAX_EVALUATED_TOKENS = 10_000_000  # the mean of this many predictions is exact to three digits


class TokenIds(Protocol):
    """A sequence of token ids that can be sliced: a tensor, an array or a file."""

    def __len__(self) -> int:
        """The number of tokens."""

    def __getitem__(self, stretch: slice, /) -> Any:
        """Return a slice as a tensor or an array of whole numbers."""


def count_windows_per_batch(model: LanguageModel, T: int) -> int:
    """Return how many windows of T tokens a model reads at once: as many as are fast, and their logits small enough."""
    return max(1, min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // model.config.vocab_size) // T)


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
    for _, losses in iterate_losses(model, ids, max_predictions):
        total += losses.double().sum().item()
        count += losses.numel()
    return total / count


def iterate_losses(
    model: LanguageModel, ids: TokenIds, max_predictions: int | None = None, threads: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predict each token of a text once, batch after batch. At any time the batches so far are spread evenly.

    Args:
        model: the model that predicts.
        ids: the token ids of the text, at least 2.
        max_predictions: as for `compute_exact_loss`.
        threads: on a CPU, this number of threads work at the same time, each on a batch of its own. With a large
            vocabulary they are fewer, so that their logits fit in memory. With 1, PyTorch's threads share each batch
            and wait for each other in every layer, which is slower. FSDP needs 1.

    Yields:
        Targets y, (B, T), int64, and their losses in nats, (B, T), float32, on the CPU.
    """
    parts = split_into_windows(ids, model.config.block_size, max_predictions)
    batches = itertools.chain.from_iterable(_split_into_batches(model, x, y) for x, y in parts)
    max_workers = LOGITS_PER_BATCH // (TOKENS_PER_BATCH * model.config.vocab_size)
    workers = max(1, min(threads, max_workers)) if get_device(model).type == "cpu" else 1
    with evaluation_mode(model), limit_threads(0, threads // workers) if workers > 1 else nullcontext():
        yield from map_in_threads(functools.partial(_compute_batch, model), batches, workers)


def _compute_window_losses(model: LanguageModel, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss in nats of each prediction of y from x, both (N, T), as (N, T) on the CPU; dropout is off."""
    with evaluation_mode(model):
        return torch.cat([_compute_batch(model, batch)[1] for batch in _split_into_batches(model, x, y)])


def _split_into_batches(model: LanguageModel, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split windows x and targets y, both (N, T), into batches (B, T)."""
    windows = count_windows_per_batch(model, x.shape[1])
    return zip(x.split(windows), y.split(windows), strict=True)


@torch.no_grad()  # inference_mode would not work: FSDP gathers its parameters during forward
def _compute_batch(model: LanguageModel, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the targets of a batch and their losses in nats, (B, T) both, on the CPU."""
    x, y = batch
    device = get_device(model)
    logits, _ = model(x.to(device))  # (B, T, V)
    losses = F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten(), reduction="none")  # (B * T)
    return y, losses.view(y.shape).cpu()


def split_into_windows(
    ids: TokenIds, block_size: int, max_predictions: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a text into the windows in which its loss is measured.

    The order of the windows spreads them: those yielded so far are always spread evenly over the text.

    Args:
        ids: the token ids of the text, at least 2.
        block_size: the length T of a window. The last window may be shorter.
        max_predictions: the largest number of predictions. A longer text gives as many evenly spread windows as
            fit into it, and at least one.

    Yields:
        Inputs x and targets y, (N, T) each, int64, with about TOKENS_PER_READ tokens.
    """
    count, T = len(ids) - 1, block_size
    is_whole = max_predictions is None or count <= max_predictions
    windows = count // T
    chosen = windows if is_whole else max(1, (max_predictions or 0) // T)
    stride = _find_spreading_stride(chosen)
    windows_per_read = max(1, TOKENS_PER_READ // T)
    for first in range(0, chosen, windows_per_read):
        numbers = np.arange(first, min(first + windows_per_read, chosen)) * stride % chosen
        starts = (numbers * windows // chosen * T).tolist()
        rows = np.stack([ids[start : start + T + 1] for start in starts], dtype=np.int64)
        yield torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])  # (N, T) each
    if is_whole and windows * T < count:
        rest = np.asarray(ids[windows * T :]).astype(np.int64)[None]
        yield torch.from_numpy(rest[:, :-1]), torch.from_numpy(rest[:, 1:])


def _find_spreading_stride(count: int) -> int:
    """Return a stride s: the numbers 0, s, 2s, ... modulo `count` are all different and, from the first on, spread out.

    It is about `count` divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, section 6.4).
    """
    stride = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride

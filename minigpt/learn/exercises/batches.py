"""Exercise 2: the two splits of a text, and batches."""

from typing import Any

import torch
from torch import Tensor

from minigpt.learn.exercise import Case, Exercise, Mistake

TEXT = """
The last tenth of the text is kept for validation. The model never trains on it, so its loss there shows what the
model has learned, and not what it has memorized.

A batch is a few windows of the text. x holds the windows, y holds the targets: y[b, t] is the token that comes after
x[b, t]. So y is the same window, one token later.

    data     5 1 4 1 3 9 2 6            starts = [1, 4], block_size = 3
    x[0]       1 4 1                    x, y: (B, T), here (2, 3)
    y[0]         4 1 3
    x[1]             3 9 2
    y[1]               9 2 6

One window of T tokens has T predictions at once: after 1 comes 4, after 1 4 comes 1, after 1 4 1 comes 3.
"""

EXPERIMENT = """
data = torch.arange(100)
train, val = split_ids(data)
print(len(train), "ids to train on,", len(val), "to validate")
starts = torch.randint(len(train) - 8, (4,))
x, y = get_batch(train, starts, block_size=8)
for t in range(8):
    print(f"after {x[0, : t + 1].tolist()} comes {y[0, t].item()}")
"""


def split_ids(ids: Tensor, train_fraction: float = 0.9) -> tuple[Tensor, Tensor]:
    """Split the ids of a text.

    Args:
        ids: the ids of the whole text, (N,).
        train_fraction: the share of the training split. Round down to whole ids.

    Returns:
        The first part, to train on, and the rest, to validate.
    """
    boundary = int(train_fraction * len(ids))
    return ids[:boundary], ids[boundary:]


def get_batch(data: Tensor, starts: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Cut windows out of a text.

    Args:
        data: the ids of the text, (N,), int64.
        starts: where each window begins, (B,), int64.
        block_size: T, the length of a window.

    Returns:
        The windows x and their targets y, both (B, T).
    """
    x = torch.stack([data[start : start + block_size] for start in starts])
    y = torch.stack([data[start + 1 : start + block_size + 1] for start in starts])
    return x, y


def _cut(data: Tensor, starts: Tensor, first: int, length: int) -> Tensor:
    return torch.stack([data[start + first : start + first + length] for start in starts])


def _make_batch(x: tuple[int, int], y: tuple[int, int]) -> Any:
    """Return a get_batch whose windows begin and lengthen by the given numbers."""

    def get_batch(data: Tensor, starts: Tensor, block_size: int) -> Any:
        return tuple(_cut(data, starts, first, block_size + more) for first, more in (x, y))

    return get_batch


def _last_target_only(data: Tensor, starts: Tensor, block_size: int) -> Any:
    return _cut(data, starts, 0, block_size), data[starts + block_size]


def _split_end(ids: Tensor, train_fraction: float = 0.9) -> Any:
    boundary = len(ids) - int(train_fraction * len(ids))
    return ids[boundary:], ids[:boundary]


IDS = torch.tensor([5, 1, 4, 1, 3, 9, 2, 6, 8, 0, 7, 11, 10])

EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor",
    references=(split_ids, get_batch),
    cases=(
        Case("split_ids(ids of 13 tokens)", lambda my: my.split_ids(IDS)),
        Case("split_ids(ids of 13 tokens, 0.5)", lambda my: my.split_ids(IDS, 0.5)),
        Case(f"get_batch({IDS[:4].tolist()}, starts [0], 1)", lambda my: my.get_batch(IDS, torch.tensor([0]), 1)),
        Case("get_batch(ids, starts [1, 4], 3)", lambda my: my.get_batch(IDS, torch.tensor([1, 4]), 3)),
        Case("get_batch(ids, starts [4, 0, 4], 8)", lambda my: my.get_batch(IDS, torch.tensor([4, 0, 4]), 8)),
    ),
    mistakes=(
        Mistake("the targets are not shifted: y is the same as x", {"get_batch": _make_batch((0, 0), (0, 0))}),
        Mistake("the targets are shifted by two tokens", {"get_batch": _make_batch((0, 0), (2, 0))}),
        Mistake(
            "the targets are shifted the wrong way: y[t] is the token before x[t]",
            {"get_batch": _make_batch((1, 0), (0, 0))},
        ),
        Mistake("the windows are one token too long", {"get_batch": _make_batch((0, 1), (1, 1))}),
        Mistake("the windows are one token too short", {"get_batch": _make_batch((0, -1), (1, -1))}),
        Mistake(
            "y has only the token after the whole window, instead of a target at each position",
            {"get_batch": _last_target_only},
        ),
        Mistake(
            "the validation split comes first: the two are returned in the wrong order",
            {"split_ids": lambda ids, train_fraction=0.9: split_ids(ids, train_fraction)[::-1]},
        ),
        Mistake("the end of the text is for training and its start for validation", {"split_ids": _split_end}),
        Mistake(
            "the training split is the whole text, so the validation text is trained on",
            {"split_ids": lambda ids, train_fraction=0.9: (ids, split_ids(ids, train_fraction)[1])},
        ),
    ),
    hints=(
        "A slice takes a window: data[start : start + block_size].",
        "The targets are a slice too. It begins one later, and ends one later.",
        "torch.stack([...]) makes one tensor (B, T) of B tensors (T,).",
    ),
    experiment=EXPERIMENT,
)

"""Exercise 2: the two splits of a text, and batches."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.outcomes import name_parts

TEXT = """
The last tenth of the text is kept for validation. The model never trains on it, so its loss there shows what the
model has learned, and not what it has memorized.

A batch is a few windows of the text, and `starts` says where each window begins. x holds the windows. y holds the
targets: y[b, t] is the token that comes after x[b, t]. So y is the same window, one token later.

    data     5 1 4 1 3 9 2 6            starts = [1, 4], block_size = 3
    x[0]       1 4 1                    x, y: (B, T), here (2, 3)
    y[0]         4 1 3
    x[1]             3 9 2
    y[1]               9 2 6

One window of T tokens has T predictions at once: after 1 comes 4, after 1 4 comes 1, after 1 4 1 comes 3.
"""

EXPERIMENT = """
torch.manual_seed(0)
text = "to be, or not to be, that is the question: whether 'tis nobler in the mind to suffer"
characters = sorted(set(text))
train, val = split_ids(torch.tensor([characters.index(c) for c in text]))
print(len(train), "ids to train on,", len(val), "to validate")
x, y = get_batch(train, starts=torch.randint(len(train) - 8, (3,)), block_size=8)


def decode(ids):
    return repr("".join(characters[i] for i in ids))


for b in range(3):
    print(f"x[{b}] = {decode(x[b])}   y[{b}] = {decode(y[b])}")
for t in range(8):
    print(f"after {decode(x[0, : t + 1])} comes {decode(y[0, t : t + 1])}")
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


def _split_at(boundary: Callable[[float], int], overlap: int = 0) -> dict[str, Any]:
    """Return a split at another place, or one whose second part begins earlier or later."""

    def split_ids(ids: Tensor, train_fraction: float = 0.9) -> Any:
        n = boundary(train_fraction * len(ids))
        return ids[:n], ids[n - overlap :]

    return {"split_ids": split_ids}


def _shuffled(ids: Tensor, train_fraction: float = 0.9) -> Any:
    return split_ids(ids[torch.randperm(len(ids))], train_fraction)


def _rolled(data: Tensor, starts: Tensor, block_size: int) -> Any:
    x = _cut(data, starts, 0, block_size)
    return x, x.roll(-1, dims=1)


def _next_window(data: Tensor, starts: Tensor, block_size: int) -> Any:
    return tuple(
        torch.stack([data[start + first : start + first + block_size] for start in starts]) for first in (0, block_size)
    )


def _joined(data: Tensor, starts: Tensor, block_size: int) -> Any:
    return tuple(part.flatten() for part in get_batch(data, starts, block_size))


def _columns(data: Tensor, starts: Tensor, block_size: int) -> Any:
    return tuple(part.T for part in get_batch(data, starts, block_size))


def _last_window(data: Tensor, starts: Tensor, block_size: int) -> Any:
    return tuple(part[-1] for part in get_batch(data, starts, block_size))


def _lists(data: Tensor, starts: Tensor, block_size: int) -> Any:
    return tuple(list(part) for part in get_batch(data, starts, block_size))


def _name_splits(result: Any) -> dict[str, Any]:
    return name_parts("split_ids", result, "the training split", "the validation split")


def _make_batch_case(starts: list[int], block_size: int) -> Case:
    """Return a case that names x and y."""
    return Case(
        f"get_batch({IDS.tolist()}, starts {starts}, block_size {block_size})",
        lambda my: name_parts("get_batch", my.get_batch(IDS, torch.tensor(starts), block_size), "x", "y"),
    )


EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor",
    references=(split_ids, get_batch),
    cases=(
        Case(f"split_ids({IDS.tolist()})", lambda my: _name_splits(my.split_ids(IDS))),
        Case(f"split_ids({IDS.tolist()}, 0.5)", lambda my: _name_splits(my.split_ids(IDS, 0.5))),
        *(_make_batch_case(starts, size) for starts, size in (([2], 1), ([1, 4], 3), ([4, 0, 4], 8))),
    ),
    mistakes=(
        Mistake("the targets are not shifted: y is the same as x", {"get_batch": _make_batch((0, 0), (0, 0))}),
        Mistake("the targets are shifted by two tokens", {"get_batch": _make_batch((0, 0), (2, 0))}),
        Mistake(
            "the targets are shifted the wrong way: y[t] is the token before x[t]",
            {"get_batch": _make_batch((1, 0), (0, 0))},
        ),
        Mistake(
            "y begins one token before x, and must begin one token after", {"get_batch": _make_batch((0, 0), (-1, 0))}
        ),
        Mistake("the windows are one token too long", {"get_batch": _make_batch((0, 1), (1, 1))}),
        Mistake("the windows are one token too short", {"get_batch": _make_batch((0, -1), (1, -1))}),
        Mistake(
            "the targets end too early: the slice must also end one later", {"get_batch": _make_batch((0, 0), (1, -1))}
        ),
        Mistake("the targets are x, turned round: the last one is the first token of x", {"get_batch": _rolled}),
        Mistake("y is the window after x, instead of x one token later", {"get_batch": _next_window}),
        Mistake("the windows are joined to one long row: torch.stack instead of torch.cat", {"get_batch": _joined}),
        Mistake("the windows stand in columns: torch.stack needs dim=0", {"get_batch": _columns}),
        Mistake(
            "only the last window is returned: the others are overwritten in the loop", {"get_batch": _last_window}
        ),
        Mistake("x and y are lists of windows: torch.stack makes tensors of them", {"get_batch": _lists}),
        Mistake(
            "y has only the token after the whole window, instead of a target at each position",
            {"get_batch": _last_target_only},
        ),
        Mistake(
            "the validation split comes first: the two are returned in the wrong order",
            {"split_ids": lambda ids, train_fraction=0.9: split_ids(ids, train_fraction)[::-1]},
        ),
        Mistake("the number of ids is rounded up instead of down: use int()", _split_at(math.ceil)),
        Mistake("the number of ids is rounded to the nearest number instead of down: use int()", _split_at(round)),
        Mistake(
            "the boundary is always at 0.9: the argument train_fraction is not used",
            {"split_ids": lambda ids, train_fraction=0.9: split_ids(ids)},
        ),
        Mistake("the last training id is in the validation split too", _split_at(int, overlap=1)),
        Mistake("one id between the two splits is lost", _split_at(int, overlap=-1)),
        Mistake("the ids are shuffled: both splits must be in the order of the text", {"split_ids": _shuffled}),
        Mistake("the end of the text is for training and its start for validation", {"split_ids": _split_end}),
        Mistake(
            "the training split is the whole text, so the validation text is trained on",
            {"split_ids": lambda ids, train_fraction=0.9: (ids, split_ids(ids, train_fraction)[1])},
        ),
    ),
    hints=(
        "int(train_fraction * len(ids)) is where the text is split. A slice takes a window: "
        "data[start : start + block_size].",
        "The targets are a slice too. It begins one later, and ends one later.",
        "torch.stack([...]) makes one tensor (B, T) of B tensors (T,).",
    ),
    experiment=EXPERIMENT,
)

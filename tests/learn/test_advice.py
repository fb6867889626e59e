"""Errors that learners often see come with a word of advice."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minigpt.learn.advice import find_advice
from minigpt.learn.outcomes import describe_exception


class _LateSuper(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.Linear(1, 1)
        super().__init__()


def _add_in_place() -> None:
    x = torch.zeros(2, requires_grad=True)
    x += 1


def _enter_without_brackets() -> None:
    with torch.no_grad:  # type: ignore[attr-defined]
        pass


def _change_while_looping() -> None:
    words = {1: 2}
    for word in words:
        words[word + 1] = words.pop(word)


ids, logits = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, 4)
CASES: dict[str, Callable[[], object]] = {
    "use nn.Sequential, or loop over it": lambda: nn.ModuleList([nn.ReLU()])(logits),
    "nn.ReLU() with its brackets": lambda: nn.Sequential(nn.ReLU),  # type: ignore[arg-type]
    "nn.Sequential(*modules) for a list": lambda: nn.Sequential([nn.ReLU()]),  # type: ignore[arg-type]
    "super().__init__() must come first": _LateSuper,
    "write x = x + y": _add_in_place,
    "take them apart": lambda: (logits, 1).backward(),  # type: ignore[attr-defined]
    "look for the line that made it": lambda: None.backward(),  # type: ignore[attr-defined]
    "F.cross_entropy takes logits (N, V)": lambda: F.cross_entropy(logits, ids),
    "gather needs an index": lambda: logits.gather(-1, ids),
    "For a @ b": lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
    "Two shapes do not fit": lambda: logits + torch.zeros(5),
    "torch.tensor(levels)[numbers]": lambda: [1.0, 2.0][ids],  # type: ignore[call-overload]
    "must be below len(data) - block_size": lambda: torch.stack([torch.zeros(2), torch.zeros(3)]),
    "take .values": lambda: logits.max(dim=-1).mean(),  # type: ignore[attr-defined]
    "size ** 0.5": lambda: torch.sqrt(4),  # type: ignore[arg-type]
    "the last i for which i + 1 exists": lambda: (1, 2)[2],
    "the softmax comes first": lambda: torch.multinomial(torch.tensor([-1.0, 2.0]), 1),
    "int(...)": lambda: ids[: 0.9 * 2],  # type: ignore[misc]
    "with torch.no_grad():": _enter_without_brackets,
    "is it the mean": lambda: torch.zeros(2, requires_grad=True).exp().backward(),
    "min(k, logits.shape[-1])": lambda: logits.topk(9),
    "larger than the table": lambda: F.embedding(ids + 7, torch.zeros(5, 2)),
    "count them": lambda: logits.view(-1, 5),
    "stop the loop before": lambda: min([]),
    "Build a new dict": _change_while_looping,
    "Look at the first line of what you call": lambda: _add_in_place(1),  # type: ignore[call-arg]
    "Is it still empty at the first call": lambda: {}["k"],
    "Is self. missing": lambda: no_such_name,  # type: ignore[name-defined]  # noqa: F821
    "are its .items()": lambda: list(3),  # type: ignore[call-overload]
    "leave the brackets out": lambda: find_advice(),  # type: ignore[call-arg]
    "instead of input() or breakpoint()": lambda: (_ for _ in ()).throw(EOFError("EOF when reading a line")),
}


@pytest.mark.parametrize("part", CASES)
def test_an_error_gets_its_advice(part: str) -> None:
    with pytest.raises(Exception) as caught:
        CASES[part]()
    assert part in find_advice(describe_exception(caught.value))


def test_another_error_gets_none() -> None:
    assert find_advice(describe_exception(ZeroDivisionError("division by zero"))) == ""

"""Examples as token ids, and batches of them: what instruction tuning and DPO share.

A conversation is one sequence of tokens, see tokenizers/chat_format.py. The loss counts the answers and the token that
ends each of them. Examples of similar length make a batch. Shorter ones are padded at the end: attention is causal, so
no real token sees the padding, and the loss ignores it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config
from minigpt.data.shards import Split
from minigpt.errors import DataError
from minigpt.finetuning.examples import Example
from minigpt.finetuning.length_bucketing import LengthBucketSampler
from minigpt.model.loss import IGNORE_INDEX
from minigpt.tokenizers.chat_format import ChatTemplate


@dataclass(frozen=True)
class EncodedExample:
    """An example as token ids.

    Attributes:
        x: the model's input.
        y: the targets, IGNORE_INDEX where the loss does not count them.
        is_truncated: True where the beginning was cut off to fit block_size.
    """

    x: list[int]
    y: list[int]
    is_truncated: bool


Item = tuple[EncodedExample, ...]  # what is drawn at once: one example, or both answers of a pair


def encode_example(example: Example, template: ChatTemplate, block_size: int) -> EncodedExample:
    """Encode an example, without its beginning if it is longer than block_size.

    Raises:
        DataError: the answer alone is longer.
    """
    ids, counted = template.encode(example.turns)
    max_length = block_size + 1  # x and y are shifted by one
    if len(ids) > max_length and len(template.tokenizer.encode(example.answer)) + 2 > max_length:
        raise DataError(
            f"an answer of {len(example.answer):,} characters is longer than the {block_size} tokens that "
            "the model sees: shorten it, or take a base with a larger block_size"
        )
    is_truncated = len(ids) > max_length
    ids, counted = ids[-max_length:], counted[-max_length:]
    y = [i if counts else IGNORE_INDEX for i, counts in zip(ids[1:], counted[1:], strict=True)]
    return EncodedExample(ids[:-1], y, is_truncated)


class ExampleDataset:
    """Items to train on and to validate with, in batches of similar length.

    A batch of B items has the first example of each item, then the second of each, and so on: N rows.

    Attributes:
        items: the encoded items of each split.
        truncated: how many examples were longer than block_size; their beginning is cut off.
        position: how many training items have been drawn, windows of the base's own text included.
        skip_positions: the positions after batches that are left out, because the loss diverged there.
    """

    def __init__(self, items: dict[Split, list[Item]], config: Config) -> None:
        """Prepare the batches.

        Args:
            items: the items of each split. All have the same number of examples.
            config: gives batch_size and the seed.

        Raises:
            DataError: a split has no item.
        """
        for purpose, split in (("train on", items["train"]), ("validate with", items["val"])):
            if not split:
                raise DataError(f"there is no example to {purpose}: name more of them")
        self.items = items
        self.batch_size, self.block_size = config.training.batch_size, config.model.block_size
        self.position, self.skip_positions = 0, list[int]()
        self.generator = torch.Generator().manual_seed(config.training.seed)
        self.val_generator = torch.Generator().manual_seed(config.training.seed)
        self.truncated = sum(example.is_truncated for example in self._get_examples())
        lengths = [max(len(example.x) for example in item) for item in items["train"]]
        self.batches = LengthBucketSampler(lengths, self.batch_size, self.generator)

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the next batch: x and y, (N, T), int64. A training item comes once an epoch.

        T is the length of the longest example in the batch.
        """
        items = self.items[split]
        if split == "val":
            chosen = torch.randint(len(items), (self.batch_size,), generator=self.val_generator).tolist()
            return _stack_items([items[i] for i in chosen])
        chosen = next(self.batches)
        self.position += len(chosen)
        if self.position in self.skip_positions:
            return self.get_batch(split)
        return _stack_items([items[i] for i in chosen])

    def count_targets(self, y: Tensor) -> int:
        """Return the number of targets in y whose mean is the loss of its batch: the tokens of the answers."""
        return int((y != IGNORE_INDEX).sum())

    def get_evaluation_batch(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """Return at most `count` items, evenly spread, always the same: x and y, (N, T), int64."""
        items = self.items[split]
        return _stack_items(items[:: max(1, math.ceil(len(items) / count))])

    def report_truncated(self, say: Callable[[str], None], kind: str) -> None:
        """Say how many examples are longer than block_size, if there are any; `kind` is their name in the plural."""
        if self.truncated:
            say(f"       {self.truncated:,} {kind} exceed {self.block_size} tokens: their beginnings are cut off")

    def get_all(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return all items of a split: x and y, (N, T), int64."""
        return _stack_items(self.items[split])

    @property
    def num_tokens(self) -> int:
        """The number of tokens in both splits."""
        return sum(len(example.x) for example in self._get_examples())

    @property
    def tokens_per_batch(self) -> float:
        """The number of tokens in an average batch."""
        return self.batch_size * self.num_tokens / sum(map(len, self.items.values()))

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs: the states of the generator and of the epoch, and the position."""
        return {"generator": self.generator.get_state(), "position": self.position, **self.batches.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        self.batches.load_state_dict(state)
        self.generator.set_state(state["generator"])
        self.position = state["position"]

    def _get_examples(self) -> list[EncodedExample]:
        return [example for split in self.items.values() for item in split for example in item]


def _pad_batch(batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
    """Return examples as x and y, (N, T), int64, padded at the end with zeros in x and IGNORE_INDEX in y."""
    longest = max(len(example.x) for example in batch)
    x = torch.zeros(len(batch), longest, dtype=torch.int64)
    y = torch.full((len(batch), longest), IGNORE_INDEX)
    for row, example in enumerate(batch):
        x[row, : len(example.x)] = torch.tensor(example.x)
        y[row, : len(example.y)] = torch.tensor(example.y)
    return x, y


def _stack_items(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Return items as x and y, (N, T): the first example of each item, then the second of each."""
    return _pad_batch([example for examples in zip(*items, strict=True) for example in examples])

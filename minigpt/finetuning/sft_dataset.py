"""Batches of examples for instruction tuning (supervised fine-tuning, SFT).

A conversation is one sequence of tokens, see tokenizers/chat_format.py. The loss counts the answers and the token that
ends each of them. Examples of similar length make a batch. Shorter ones are padded at the end: attention is causal, so
no real token sees the padding, and the loss ignores it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config
from minigpt.data.shards import Split
from minigpt.errors import DataError
from minigpt.finetuning.length_bucketing import LengthBucketSampler
from minigpt.finetuning.replay import ReplayDataset
from minigpt.finetuning.sft_examples import Example
from minigpt.model.loss import IGNORE_INDEX
from minigpt.tokenizers.chat_format import ChatTemplate

REPLAY_FRACTION = 1 / 5  # of all training batches


@dataclass(frozen=True)
class EncodedExample:
    """An example as token ids.

    Attributes:
        x: the model's input.
        y: the targets, IGNORE_INDEX where the loss does not count them.
        truncated: True where the beginning was cut off to fit block_size.
    """

    x: list[int]
    y: list[int]
    truncated: bool


def encode_example(example: Example, template: ChatTemplate, block_size: int) -> EncodedExample:
    """Encode an example, without its beginning if it is longer than block_size.

    Raises:
        DataError: if the answer alone is longer.
    """
    ids, counted = template.encode(example.turns)
    max_length = block_size + 1  # x and y are shifted by one
    if len(ids) > max_length and len(template.tokenizer.encode(example.answer)) + 2 > max_length:
        raise DataError(
            f"an answer of {len(example.answer):,} characters is longer than the {block_size} tokens that "
            "the model sees: shorten it, or take a base with a larger block_size"
        )
    truncated = len(ids) > max_length
    ids, counted = ids[-max_length:], counted[-max_length:]
    y = [i if counts else IGNORE_INDEX for i, counts in zip(ids[1:], counted[1:], strict=True)]
    return EncodedExample(ids[:-1], y, truncated)


class SFTDataset:
    """Examples to train on and to validate with, in batches of similar length.

    Attributes:
        examples: the encoded examples of each split.
        truncated: how many were longer than block_size; their beginning is cut off.
        position: how many training examples have been drawn.
        skipped: the position after a batch that is left out; 0 for none.
    """

    def __init__(
        self,
        train: Sequence[Example],
        val: Sequence[Example],
        template: ChatTemplate,
        config: Config,
        replay: ReplayDataset | None = None,
    ) -> None:
        """Encode the examples.

        Args:
            train: examples to train on.
            val: held-out examples.
            template: the chat format.
            config: gives block_size, batch_size and the seed.
            replay: the base's own text; one training batch in five is of it.

        Raises:
            DataError: if a split has no example, or an answer alone is longer than block_size.
        """
        self.replay = replay
        self.batch_size = config.training.batch_size
        self.position = self.skipped = 0
        self.generator = torch.Generator().manual_seed(config.training.seed)
        self.val_generator = torch.Generator().manual_seed(config.training.seed)
        self.examples: dict[Split, list[EncodedExample]] = {
            "train": [encode_example(example, template, config.model.block_size) for example in train],
            "val": [encode_example(example, template, config.model.block_size) for example in val],
        }
        for purpose, split in (("train on", self.examples["train"]), ("validate with", self.examples["val"])):
            if not split:
                raise DataError(f"there is no example to {purpose}: name more of them")
        self.truncated = sum(example.truncated for split in self.examples.values() for example in split)
        lengths = [len(example.x) for example in self.examples["train"]]
        self.batches = LengthBucketSampler(lengths, self.batch_size, self.generator)

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the next batch: x and y, (B, T), int64. A training example comes once an epoch.

        T is the length of the longest example in the batch.
        """
        examples = self.examples[split]
        if split == "val":
            chosen = torch.randint(len(examples), (self.batch_size,), generator=self.val_generator).tolist()
            return pad_batch([examples[i] for i in chosen])
        if self.replay and torch.rand((), generator=self.generator) < REPLAY_FRACTION:
            return self.replay.get_batch()
        chosen = next(self.batches)
        self.position += len(chosen)
        if self.position == self.skipped:
            return self.get_batch(split)
        return pad_batch([examples[i] for i in chosen])

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the states of the generators and of the epoch, and the position."""
        state = {"generator": self.generator.get_state(), "position": self.position, **self.batches.state()}
        replay = self.replay.state() if self.replay else {}
        return state | {f"replay_{name}": value for name, value in replay.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        self.batches.restore(state)
        self.generator.set_state(state["generator"])
        self.position = state["position"]
        if self.replay:
            self.replay.restore({name: state[f"replay_{name}"] for name in self.replay.state()})

    @property
    def tokens(self) -> int:
        """Tokens in both splits."""
        return sum(len(example.x) for split in self.examples.values() for example in split)

    @property
    def tokens_a_batch(self) -> float:
        """Tokens in an average batch."""
        return self.batch_size * self.tokens / sum(map(len, self.examples.values()))

    def sample(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """Return at most `count` examples, evenly spread: x and y, (N, T), int64."""
        examples = self.examples[split]
        return pad_batch(examples[:: max(1, math.ceil(len(examples) / count))])

    def get_all(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return all examples of a split: x and y, (N, T), int64."""
        return pad_batch(self.examples[split])


def pad_batch(batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
    """Return examples as x and y, (B, T), int64, padded at the end with zeros in x and IGNORE_INDEX in y."""
    longest = max(len(example.x) for example in batch)
    x = torch.zeros(len(batch), longest, dtype=torch.int64)
    y = torch.full((len(batch), longest), IGNORE_INDEX)
    for row, example in enumerate(batch):
        x[row, : len(example.x)] = torch.tensor(example.x)
        y[row, : len(example.y)] = torch.tensor(example.y)
    return x, y

"""Pairs of answers for DPO, read from a file and served in batches.

A line of the file has prompt, chosen and rejected, each text or messages, as in trl's data sets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config
from minigpt.data.shards import Split
from minigpt.errors import DataError
from minigpt.finetuning.length_bucketing import LengthBucketSampler
from minigpt.finetuning.sft_dataset import EncodedExample, encode_example, pad_batch
from minigpt.finetuning.sft_examples import Example, parse_conversation, read_json_lines
from minigpt.tokenizers.chat_format import ChatTemplate


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, the better one first."""

    chosen: Example
    rejected: Example


def read_pairs(path: str | Path) -> list[PreferencePair]:
    """Read the pairs of a file.

    Raises:
        DataError: if a line is not a pair; the message has the file, the line and the reason.
        FileError: if the file cannot be read or is empty.
    """
    return [parse_pair(content, where) for where, content in read_json_lines(path, "pairs")]


def parse_pair(content: Any, where: str) -> PreferencePair:
    """Return the pair that a line holds. Raises DataError, with the place, if it holds none."""
    names = ("prompt", "chosen", "rejected")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str | list) for name in names):
        raise DataError(f"{where}: a pair needs prompt, chosen and rejected, each text or messages")
    prompt = _make_messages(content["prompt"], "user")
    chosen = parse_conversation(prompt + _make_messages(content["chosen"], "assistant"), where)
    rejected = parse_conversation(prompt + _make_messages(content["rejected"], "assistant"), where)
    if chosen == rejected:
        raise DataError(f"{where}: chosen and rejected are the same, so there is nothing to prefer: leave it out")
    if chosen.prompt != rejected.prompt:
        raise DataError(f"{where}: chosen and rejected must be one answer each, to the same prompt")
    return PreferencePair(chosen, rejected)


def _make_messages(content: str | list[Any], role: str) -> list[Any]:
    """Return text as a message of that role, and messages as they are."""
    return [{"role": role, "content": content}] if isinstance(content, str) else content


class PreferenceDataset:
    """Pairs to train on and to validate with, in batches of similar length.

    A batch of B pairs has 2B rows: the chosen answers' conversations, then the rejected ones'.

    Attributes:
        pairs: the encoded pairs of each split.
        truncated: how many conversations were longer than block_size; their beginning is cut off.
        position: how many training pairs have been drawn.
        skipped: the position after a batch that is left out; 0 for none.
    """

    def __init__(
        self,
        train: Sequence[PreferencePair],
        val: Sequence[PreferencePair],
        template: ChatTemplate,
        config: Config,
    ) -> None:
        """Encode the pairs. Raises DataError if an answer alone is longer than block_size."""
        self.position = self.skipped = 0
        self.batch_size = config.training.batch_size
        self.generator = torch.Generator().manual_seed(config.training.seed)
        self.val_generator = torch.Generator().manual_seed(config.training.seed)

        def encode(pair: PreferencePair) -> tuple[EncodedExample, EncodedExample]:
            block_size = config.model.block_size
            return encode_example(pair.chosen, template, block_size), encode_example(
                pair.rejected, template, block_size
            )

        self.pairs: dict[Split, list[tuple[EncodedExample, EncodedExample]]] = {
            "train": [encode(pair) for pair in train],
            "val": [encode(pair) for pair in val],
        }
        self.truncated = sum(each.truncated for split in self.pairs.values() for pair in split for each in pair)
        lengths = [max(len(each.x) for each in pair) for pair in self.pairs["train"]]
        self.batches = LengthBucketSampler(lengths, self.batch_size, self.generator)

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the next batch: x and y, both (2B, T), int64. A training pair comes once an epoch."""
        pairs = self.pairs[split]
        if split == "val":
            chosen = torch.randint(len(pairs), (self.batch_size,), generator=self.val_generator).tolist()
            return _stack_pairs([pairs[i] for i in chosen])
        chosen = next(self.batches)
        self.position += len(chosen)
        if self.position == self.skipped:
            return self.get_batch(split)
        return _stack_pairs([pairs[i] for i in chosen])

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the states of the generator and of the epoch, and the position."""
        return {"generator": self.generator.get_state(), "position": self.position, **self.batches.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        self.batches.restore(state)
        self.generator.set_state(state["generator"])
        self.position = state["position"]

    @property
    def tokens(self) -> int:
        """Tokens in both splits."""
        return sum(len(each.x) for split in self.pairs.values() for pair in split for each in pair)

    @property
    def tokens_a_batch(self) -> float:
        """Tokens in an average batch."""
        return self.batch_size * self.tokens / sum(map(len, self.pairs.values()))

    def sample(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """Return at most `count` pairs, evenly spread: x and y, (2N, T), int64."""
        pairs = self.pairs[split]
        return _stack_pairs(pairs[:: max(1, math.ceil(len(pairs) / count))])

    def get_all(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return all pairs of a split: x and y, (2N, T), int64."""
        return _stack_pairs(self.pairs[split])


def _stack_pairs(pairs: Sequence[tuple[EncodedExample, EncodedExample]]) -> tuple[Tensor, Tensor]:
    """Return pairs as x and y, (2B, T): the chosen ones, then the rejected ones."""
    return pad_batch([chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs])

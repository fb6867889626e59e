"""Batches of examples for instruction tuning (supervised fine-tuning, SFT)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config
from minigpt.data.shards import Split
from minigpt.finetuning.example_dataset import ExampleDataset, Item, encode_example
from minigpt.finetuning.examples import Example
from minigpt.finetuning.replay import ReplayDataset
from minigpt.tokenizers.chat_format import ChatTemplate

REPLAY_FRACTION = 1 / 5  # share of the training batches that are of the base's own text


class SFTDataset(ExampleDataset):
    """Examples in batches, and now and then a batch of the base's own text. An item is one example."""

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
            DataError: a split has no example, or an answer alone is longer than block_size.
        """

        def encode(example: Example) -> Item:
            return (encode_example(example, template, config.model.block_size),)

        super().__init__({"train": [*map(encode, train)], "val": [*map(encode, val)]}, config)
        self.replay = replay

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the next batch of examples, or of the base's own text: x and y, (B, T), int64."""
        if split == "train" and self.replay and torch.rand((), generator=self.generator) < REPLAY_FRACTION:
            self.position += self.batch_size
            batch = self.replay.get_batch()
            return self.get_batch(split) if self.position in self.skip_positions else batch
        return super().get_batch(split)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, with the state of the base's own text."""
        replay = self.replay.state_dict() if self.replay else {}
        return super().state_dict() | {f"replay_{name}": value for name, value in replay.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        super().load_state_dict(state)
        if self.replay:
            self.replay.load_state_dict({name: state[f"replay_{name}"] for name in self.replay.state_dict()})

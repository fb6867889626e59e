"""Pairs of answers for DPO, read from a file and served in batches.

A line of the file has prompt, chosen and rejected, each text or messages, as in trl's data sets. Without a prompt,
chosen and rejected are conversations in messages, which differ in their last answer only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from minigpt.config import Config
from minigpt.data.json_rows import iterate_json_rows
from minigpt.errors import DataError
from minigpt.finetuning.example_dataset import ExampleDataset, Item, encode_example
from minigpt.finetuning.example_formats import make_messages, require_supported
from minigpt.finetuning.examples import Example, parse_conversation
from minigpt.tokenizers.chat_format import ChatTemplate


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, the better one first."""

    chosen: Example
    rejected: Example


def read_pairs(path: str | Path) -> list[PreferencePair]:
    """Read the pairs of a file.

    Raises:
        DataError: a line is not a pair; the message has the file, the line and the reason.
        FileError: the file cannot be read or is empty.
    """
    return [parse_pair(content, where) for where, content in iterate_json_rows(path, "pairs")]


def parse_pair(content: Any, where: str) -> PreferencePair:
    """Return the pair that a line holds. Raise DataError, with the place, if it holds none."""
    names = ("prompt", "chosen", "rejected")
    if isinstance(content, dict) and content.get("prompt") is None and isinstance(content.get("chosen"), list):
        content = {**content, "prompt": []}  # the question is among the messages
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str | list) for name in names):
        raise DataError(
            f"{where}: a pair needs prompt, chosen and rejected, each text or messages; "
            "the prompt can be left out only if the other two are messages"
        )
    require_supported(
        {name: value for name, value in content.items() if name not in names}, where, ("system", "history")
    )
    prompt = make_messages(content["prompt"], "user")
    chosen = parse_conversation(prompt + make_messages(content["chosen"], "assistant"), where)
    rejected = parse_conversation(prompt + make_messages(content["rejected"], "assistant"), where)
    if chosen == rejected:
        raise DataError(f"{where}: chosen and rejected are the same, so there is nothing to prefer: leave it out")
    if chosen.prompt != rejected.prompt:
        raise DataError(f"{where}: chosen and rejected must be one answer each, to the same prompt")
    return PreferencePair(chosen, rejected)


class PreferenceDataset(ExampleDataset):
    """Pairs in batches. An item is a pair: its chosen answer's conversation, and its rejected one's.

    A batch of B pairs has 2B rows: the chosen answers' conversations, then the rejected ones'.
    """

    def __init__(
        self,
        train: Sequence[PreferencePair],
        val: Sequence[PreferencePair],
        template: ChatTemplate,
        config: Config,
    ) -> None:
        """Encode the pairs. Raise DataError if a split has no pair, or an answer alone is longer than block_size."""

        def encode(pair: PreferencePair) -> Item:
            answers = (pair.chosen, pair.rejected)
            return tuple(encode_example(answer, template, config.model.block_size) for answer in answers)

        super().__init__({"train": [*map(encode, train)], "val": [*map(encode, val)]}, config)

    def count_targets(self, y: Tensor) -> int:
        """Return the number of pairs, whose mean is the loss of DPO."""
        return len(y) // 2

"""Instructions and answers: read, written as one sequence of tokens, of which only the answers are learned.

    <|user|>reverse: moon<|assistant|>noom<|end|>

The marks between are special tokens: no text is ever encoded to them, so that nobody can forge one by writing its name.
The loss counts the answers and the mark after each, nothing else. Sequences of like length make a batch and are filled
up at the end, where nothing that counts can see it.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config
from minigpt.data.documents import SURROGATE, read_numbered_lines
from minigpt.data.shards import Split
from minigpt.errors import DataError, FileError
from minigpt.finetuning.length_bucketing import LikeLengths
from minigpt.finetuning.replay import OwnText
from minigpt.model.loss import IGNORE_INDEX
from minigpt.system.files import explain_os_errors
from minigpt.tokenizers.chat_format import ROLE_TOKENS, ChatTemplate, Turn

LONGEST_LINE = 2**24  # bytes
REHEARSED = 1 / 5  # of all batches


@dataclass(frozen=True)
class Example:
    """A conversation: perhaps a system's turn, then user and assistant in turn, the assistant last."""

    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, instruction: str, answer: str) -> "Example":
        """The shortest one."""
        return cls((Turn("user", instruction), Turn("assistant", answer)))

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """All but the last answer."""
        return self.turns[:-1]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.turns[-1].text

    @property
    def exchanges(self) -> int:
        """How many questions it has."""
        return sum(turn.role == "user" for turn in self.turns)

    @property
    def asked(self) -> str:
        """The prompt, as JSON: another for another."""
        return json.dumps([[turn.role, turn.text] for turn in self.prompt])

    @property
    def written(self) -> str:
        """The whole, as JSON."""
        return json.dumps([[turn.role, turn.text] for turn in self.turns])


def read_examples(path: str | Path) -> list[Example]:
    """The examples of a file of JSON lines, Alpaca's (instruction, input, output) or with messages (role, content).

    Raises FileError or DataError, with file, line and reason, for the first line that is neither.
    """
    return [example_of(content, where) for where, content in json_lines(path, "examples")]


def json_lines(path: str | Path, what: str) -> Iterator[tuple[str, Any]]:
    """Each line's place, for messages, and what it holds. Raises as `read_examples` does."""
    path = Path(path)
    empty = True
    with explain_os_errors("read", path), path.open("rb") as file:
        for _, where, line in read_numbered_lines(file, path, LONGEST_LINE, "no example is"):
            try:
                content = json.loads(line)
            except (ValueError, RecursionError) as error:  # of which a UnicodeDecodeError is one
                raise DataError(f"{where}, is not JSON in UTF-8 ({error}): mend it or leave it out") from None
            empty = False
            yield where, content
    if empty:
        raise FileError(f"{str(path)!r} has no {what}: a line of JSON each")


def example_of(content: Any, where: str) -> Example:
    """The example that a line holds; DataError, with the place, if it holds none."""
    if isinstance(content, dict) and "messages" in content:
        return conversation(content["messages"], where)
    if not isinstance(content, dict) or not {"instruction", "output"} <= content.keys():
        names = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{where}, is neither instruction and output nor messages (it has {names})")
    parts = [content["instruction"], content.get("input") or "", content["output"]]
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"{where}: instruction, input and output must be text")
    instruction, given, answer = parts
    return checked(
        (Turn("user", f"{instruction}\n{given}" if given else instruction), Turn("assistant", answer)), where
    )


def conversation(messages: Any, where: str) -> Example:
    """The example that a list of messages is."""
    turns = []
    for message in messages if isinstance(messages, list) else []:
        role, text = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or role not in ROLE_TOKENS or not isinstance(text, str):
            known = ", ".join(ROLE_TOKENS)
            raise DataError(
                f"{where}: a message needs a role ({known}) and a content that is text, not {message!r:.60}"
            )
        turns.append(Turn(role, text))
    return checked(tuple(turns), where)


def checked(turns: tuple[Turn, ...], where: str) -> Example:
    """The turns as an example; DataError if they are in no order, or have an empty one."""
    roles = [turn.role for turn in turns]
    said = roles[1:] if roles[:1] == ["system"] else roles
    if not said or len(said) % 2 or said != ["user", "assistant"] * (len(said) // 2):
        raise DataError(f"{where}: the roles are {', '.join(roles) or 'none'}, not user and assistant in turn")
    for turn in turns:
        if half := SURROGATE.search(turn.text):
            raise DataError(
                f"{where}, has half of a surrogate pair, U+{ord(half[0]):04X}, which is no character: mend it"
            )
        if not turn.text.strip() and turn.role != "system":
            what = "an empty answer" if turn.role == "assistant" else "an empty instruction"
            raise DataError(f"{where}, has {what}: fill it in or leave the line out")
    return Example(turns)


@dataclass(frozen=True)
class Encoded:
    """An example as what a model reads, x, and what it has to say, y, IGNORE_INDEX where that is not learned."""

    x: list[int]
    y: list[int]
    truncated: bool


def encoded(example: Example, template: ChatTemplate, block_size: int) -> Encoded:
    """An example, without its beginning if it is longer than the model sees.

    Raises DataError for an answer that alone is longer.
    """
    ids, learned = template.encode(example.turns)
    most = block_size + 1
    if len(ids) > most and len(template.tokenizer.encode(example.answer)) + 2 > most:
        raise DataError(
            f"an answer of {len(example.answer):,} characters is longer than the {block_size} tokens that "
            "the model sees: shorten it, or take a base with a larger block_size"
        )
    truncated = len(ids) > most
    ids, learned = ids[-most:], learned[-most:]
    y = [i if counts else IGNORE_INDEX for i, counts in zip(ids[1:], learned[1:], strict=True)]
    return Encoded(ids[:-1], y, truncated)


class Instructions:
    """Encoded examples, some to train on, some to validate with, in batches of like length.

    Attributes:
        truncated: how many were longer than the model sees, and begin later than they did.
        position: how many training examples have been drawn.
    """

    def __init__(
        self,
        train: Sequence[Example],
        val: Sequence[Example],
        template: ChatTemplate,
        config: Config,
        rehearsal: OwnText | None = None,
    ) -> None:
        """Now and then a batch is one of the `rehearsal`, what the model knew before, so that it isn't forgotten.

        Raises DataError for no examples, or an answer that alone is longer than block_size.
        """
        self.rehearsal = rehearsal
        self.batch_size, self.position, self.skipped = config.training.batch_size, 0, 0
        self.generator = torch.Generator().manual_seed(config.training.seed)
        self.parts: dict[Split, list[Encoded]] = {
            "train": [encoded(example, template, config.model.block_size) for example in train],
            "val": [encoded(example, template, config.model.block_size) for example in val],
        }
        self.truncated = sum(example.truncated for part in self.parts.values() for example in part)
        for name, part in (("train on", self.parts["train"]), ("validate with", self.parts["val"])):
            if not part:
                raise DataError(f"there is no example to {name}: name more of them")
        self.batches = LikeLengths([len(e.x) for e in self.parts["train"]], self.batch_size, self.generator)

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """The next batch: x and y, both (B, T), T that of the longest. Each training example comes once an epoch."""
        if split == "val":
            chosen = torch.randint(len(self.parts["val"]), (self.batch_size,), generator=self.generator).tolist()
            return padded([self.parts["val"][i] for i in chosen])
        if self.rehearsal and torch.rand((), generator=self.generator) < REHEARSED:
            return self.rehearsal.batch()
        chosen = next(self.batches)
        self.position += len(chosen)
        if self.position == self.skipped:
            return self.get_batch(split)
        return padded([self.parts["train"][i] for i in chosen])

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the states of the generators and of the epoch, and the position."""
        state = {"generator": self.generator.get_state(), "position": self.position, **self.batches.state()}
        if self.rehearsal:
            state |= {f"rehearsal_{name}": value for name, value in self.rehearsal.state().items()}
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        self.batches.restore(state)
        self.generator.set_state(state["generator"])
        self.position = state["position"]
        if self.rehearsal:
            names = self.rehearsal.state()
            self.rehearsal.restore({name: state[f"rehearsal_{name}"] for name in names})

    @property
    def tokens(self) -> int:
        """How many there are, in both splits."""
        return sum(len(example.x) for part in self.parts.values() for example in part)

    @property
    def tokens_a_batch(self) -> float:
        """How many a batch has, on average."""
        return self.batch_size * self.tokens / sum(map(len, self.parts.values()))

    def sample(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """At most `count` examples, evenly spread: x and y, (N, T)."""
        part = self.parts[split]
        chosen = range(0, len(part), max(1, math.ceil(len(part) / count)))
        return padded([part[i] for i in chosen])


def padded(batch: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Examples as x and y, (B, T), filled up at the end with what nothing before it sees and no loss counts."""
    longest = max(len(example.x) for example in batch)
    x = torch.zeros(len(batch), longest, dtype=torch.int64)
    y = torch.full((len(batch), longest), IGNORE_INDEX)
    for row, example in enumerate(batch):
        x[row, : len(example.x)] = torch.tensor(example.x)
        y[row, : len(example.y)] = torch.tensor(example.y)
    return x, y

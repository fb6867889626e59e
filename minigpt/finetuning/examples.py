"""Examples for instruction tuning: what one is, and how they are read from a file of JSON lines or an array."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.data.documents import SURROGATE
from minigpt.data.json_rows import JSON_SUFFIXES, get_suffix, iterate_json_rows, read_first_row
from minigpt.errors import DataError
from minigpt.finetuning.example_formats import convert_to_messages, is_example, parse_message
from minigpt.tokenizers.chat_format import Turn

_TEXT_SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class Example:
    """A conversation that ends with the assistant's answer.

    Attributes:
        turns: perhaps one of the system, then user and assistant in turn; the last answer is learned.
    """

    turns: tuple[Turn, ...]

    @classmethod
    def from_pair(cls, instruction: str, answer: str) -> "Example":
        """Return the shortest conversation: an instruction and its answer."""
        return cls((Turn("user", instruction), Turn("assistant", answer)))

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """All turns but the last answer."""
        return self.turns[:-1]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.turns[-1].text

    @property
    def exchanges(self) -> int:
        """How many turns of the user it has."""
        return sum(turn.role == "user" for turn in self.turns)

    @property
    def questions(self) -> list[str]:
        """What the user says, turn by turn. The training learns an answer to each."""
        return [turn.text for turn in self.turns if turn.role == "user"]

    @property
    def as_json(self) -> str:
        """The conversation as JSON."""
        return json.dumps([[turn.role, turn.text, *([] if turn.is_learned else [False])] for turn in self.turns])


def read_examples(path: str | Path) -> list[Example]:
    """Read the examples of a file.

    Raises:
        DataError: a line is not an example; the message has the file, the line and the reason.
        FileError: the file cannot be read or is empty.
    """
    return [parse_example(content, where) for where, content in iterate_json_rows(path, "examples")]


def has_examples(path: str | Path) -> bool:
    """Return True if a file has examples, and False if it has a text: its content decides.

    Raises:
        DataError: the name says that it is a text, and the content that it has examples.
        FileError: the file cannot be read.
    """
    suffix = get_suffix(path)
    if suffix in JSON_SUFFIXES:
        return not Path(path).is_dir()
    row = read_first_row(path)
    if is_example(row) and suffix in _TEXT_SUFFIXES:
        raise DataError(
            f"{str(path)!r} is named like a text and has examples: rename it to end in .jsonl to learn the answers, or "
            "train on it as text after minigpt data prepare"
        )
    return is_example(row)


def parse_example(content: Any, where: str) -> Example:
    """Return the example that a row holds. Raise DataError, with the place, if it holds none."""
    return parse_conversation(convert_to_messages(content, where), where)


def parse_conversation(messages: Any, where: str) -> Example:
    """Return the example that a list of messages holds. Raise DataError, with the place, if it holds none."""
    turns = [parse_message(message, where) for message in (messages if isinstance(messages, list) else [])]
    return _build_example(tuple(turns), where)


def _build_example(turns: tuple[Turn, ...], where: str) -> Example:
    """Check the order and the texts of the turns. Raise DataError, with the place, for what is wrong."""
    roles = [turn.role for turn in turns]
    alternating = roles[1:] if roles[:1] == ["system"] else roles
    if not alternating or alternating != ["user", "assistant"] * (len(alternating) // 2):
        raise DataError(f"{where}: the roles are {', '.join(roles) or 'none'}, not user and assistant in turn")
    for turn in turns:
        if half := SURROGATE.search(turn.text):
            raise DataError(
                f"{where}, has half of a surrogate pair, U+{ord(half[0]):04X}, which is no character: correct it"
            )
        if not turn.text.strip() and turn.role != "system":
            what = "an empty answer" if turn.role == "assistant" else "an empty instruction"
            raise DataError(f"{where}, has {what}: fill it in or leave the line out")
    learned = [n for n, turn in enumerate(turns, 1) if turn.role == "assistant" and turn.is_learned]
    if not learned:
        raise DataError(f"{where}: every answer has the weight 0, so there is nothing to learn: leave it out")
    return Example(turns[: learned[-1]])  # what comes after the last learned answer changes nothing

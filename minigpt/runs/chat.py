"""A conversation with a model: the turns so far, cut to the context that the model sees, and the next answer.

A `Run` starts one with `Run.chat`.
"""

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from minigpt.config import Config, SamplingConfig
from minigpt.errors import ConfigError, DataError
from minigpt.runs.run_info import RunInfo
from minigpt.system.files import write_atomic
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS, ChatTemplate, Turn

_ANSWER_SHARE = 4  # a quarter of block_size is kept free for the answer


class ChatRun(Protocol):
    """What a conversation asks of a run."""

    @property
    def config(self) -> Config:
        """The configuration."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""

    @property
    def info(self) -> RunInfo:
        """What run.json says."""

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return the prompt's ids."""

    def stream_from_ids(self, ids: list[int], config: SamplingConfig, stop: Collection[int] = ()) -> Iterator[str]:
        """Yield the text that continues a prompt."""


class Chat:
    """A conversation with a run's model.

    Attributes:
        run: the run.
        config: how answers are sampled.
        turns: the turns of both sides.
        is_instruction_tuned: whether the model was tuned on instructions. Another model continues the user's text.
        exchanges: how many questions a conversation in the model's training data had, if that is known. The model sees
            no more of them at a time.
    """

    def __init__(self, run: ChatRun, config: SamplingConfig) -> None:
        """Start a conversation without turns."""
        self.run, self.config = run, config
        self.turns: list[Turn] = []
        self.exchanges = run.info.exchanges
        self.is_instruction_tuned = is_instruction_tuned(run)

    def reset(self) -> None:
        """Forget all turns."""
        self.turns = []

    def set_temperature(self, value: str) -> None:
        """Set the temperature of the next answers. Raise ConfigError for text that is not a number at least 0."""
        try:
            temperature = float(value)
        except ValueError:
            raise ConfigError(f"temperature must be a number at least 0, not {value!r}") from None
        self.config = dataclasses.replace(self.config, temperature=temperature)

    def save(self, path: Path) -> int:
        """Write the conversation as a line of JSON that `minigpt finetune --data` reads.

        Questions with an empty answer are left out: there is nothing to learn from them.

        Returns:
            The number of questions with their answers in the file.

        Raises:
            DataError: there is no answer to save.
            FileError: the file cannot be written.
        """
        pairs = zip(self.turns[::2], self.turns[1::2], strict=True)
        turns = [turn for pair in pairs if pair[1].text.strip() for turn in pair]
        if not turns:
            raise DataError("the conversation has no answer to save: ask something first")
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        write_atomic(path, json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n")
        return len(turns) // 2

    def ask(self, text: str) -> str:
        """Return the answer to a question. Both become turns. Errors are those of `answer`."""
        return "".join(self.answer(text))

    def answer(self, text: str) -> Iterator[str]:
        """Answer a question; the question and the answer become turns once the answer is complete.

        Any special token ends the answer. So a turn never contains a special token's name as text. The model was not
        trained on such text, and a character tokenizer may lack its letters.

        Args:
            text: what the user says.

        Yields:
            The answer, piece by piece.

        Raises:
            UnknownCharacterError: the text has a character that the tokenizer does not know.
            DataError: the text is longer than the model's context.
        """
        turns = [*self.turns, Turn("user", text)]
        ids = encode_conversation(self.run, turns)
        answer = ""
        for piece in self.run.stream_from_ids(ids, self.config, stop=self.run.tokenizer.special_tokens.values()):
            answer += piece
            yield piece
        self.turns = [*turns, Turn("assistant", answer)]
        if self.config.seed is not None:
            self.config = dataclasses.replace(self.config, seed=self.config.seed + 1)


def is_instruction_tuned(run: ChatRun) -> bool:
    """Return True for a run whose tokenizer has the tokens of a conversation."""
    return all(name in run.tokenizer.special_tokens for name in CHAT_TOKENS)


def encode_conversation(run: ChatRun, turns: Sequence[Turn]) -> list[int]:
    """Return the prompt's ids for the next answer; for a model that learned no instructions those of the last turn.

    Raises:
        UnknownCharacterError: a turn has a character that the tokenizer does not know.
        DataError: the last turn is longer than the model's context.
    """
    if not is_instruction_tuned(run):
        return run.encode_prompt(turns[-1].text)
    return fit_prompt(ChatTemplate(run.tokenizer), turns, run.config.model.block_size, run.info.exchanges)


def fit_prompt(
    template: ChatTemplate, turns: Sequence[Turn], block_size: int, exchanges: int | None = None
) -> list[int]:
    """Encode the last turns, as many as leave room for an answer.

    Args:
        template: encodes the turns.
        turns: the conversation, which ends with a user's turn. Turns of the system before the first question are kept.
        block_size: the number of tokens that the model sees.
        exchanges: the largest number of questions, or None. A model that has only seen one question at a time cannot
            handle a second.

    Returns:
        The token ids. The last turn is always whole, even if little room is left for the answer.

    Raises:
        DataError: the last turn alone does not fit into block_size.
    """
    limit = block_size - max(1, block_size // _ANSWER_SHARE)
    starts = [n for n, turn in enumerate(turns) if turn.role == "user"]
    system = turns[: starts[0]]
    if exchanges:
        starts = starts[-exchanges:]
    for start in starts:
        ids = template.encode_prompt([*system, *turns[start:]])
        if len(ids) <= limit:
            return ids
    if len(ids) >= block_size:
        raise DataError(f"that is {len(ids)} tokens, and the model sees {block_size} at once: shorten it")
    return ids

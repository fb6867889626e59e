"""A conversation with a model: what was said, cut to what the model sees, and the next answer."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError, DataError
from minigpt.generation import engine
from minigpt.runs.run import Run
from minigpt.system.files import write_atomic
from minigpt.tokenizers.chat_format import CHAT_TOKENS, ChatTemplate, Turn

ROOM = 4  # of a window, at least a part in so many is left for the answer


class Chat:
    """A conversation.

    Attributes:
        turns: what was said, by both.
        knows_instructions: whether the model has learned any; one that has not goes on with the text.
        exchanges: how many questions it has seen in a conversation, if that is known: not more of them are shown to it.
    """

    def __init__(self, run: Run, config: SamplingConfig) -> None:
        self.run, self.config = run, config
        self.turns: list[Turn] = []
        self.exchanges = run.record.exchanges
        self.knows_instructions = all(name in run.tokenizer.special_tokens for name in CHAT_TOKENS)

    def reset(self) -> None:
        """Forget what was said."""
        self.turns = []

    def set_temperature(self, value: str) -> None:
        """Sample at that temperature from now on. Raises ConfigError for what is none."""
        try:
            temperature = float(value)
        except ValueError:
            raise ConfigError(f"temperature must be a number at least 0, not {value!r}") from None
        self.config = dataclasses.replace(self.config, temperature=temperature)

    def save(self, path: Path) -> None:
        """Write the conversation as a line of JSON, as `minigpt finetune --data` reads it. Raises FileError."""
        messages = [{"role": turn.role, "content": turn.text} for turn in self.turns]
        write_atomic(path, json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n")

    def answer(self, text: str) -> Iterator[str]:
        """What the model says to that, piece by piece; both are kept once it is said.

        Raises UnknownCharacterError for a character that it doesn't know.
        """
        if not self.knows_instructions:
            yield from self.run.stream(text, **vars(self.config))
            return
        template = ChatTemplate(self.run.tokenizer)
        turns = [*self.turns, Turn("user", text)]
        idx = torch.tensor([fitted(template, turns, self.run.config.model.block_size, self.exchanges)])
        idx = idx.to(next(iter(self.run.model.parameters())).device)
        said = ""
        for token in engine.stream(self.run.model, idx, self.config, stop=[template.end]):
            piece = self.run.tokenizer.decode(token.tolist())
            said += piece
            yield piece
        self.turns = [*turns, Turn("assistant", said)]
        if self.config.seed is not None:
            self.config = dataclasses.replace(self.config, seed=self.config.seed + 1)


def fitted(template: ChatTemplate, turns: list[Turn], block_size: int, exchanges: int | None = None) -> list[int]:
    """The ids of the last turns, whole ones from a user's on, that leave room for an answer; the last one in any case.

    At most so many `exchanges`, if that is given: a model that has only ever seen one question would mistake a second.

    Raises DataError if that alone is longer than the model sees.
    """
    most = block_size - max(1, block_size // ROOM)
    starts = [n for n, turn in enumerate(turns) if turn.role == "user"][-max(0, exchanges or 0) :]
    for start in starts:
        ids = template.encode_prompt(turns[start:])
        if len(ids) <= most:
            return ids
    if len(ids) >= block_size:
        raise DataError(f"that is {len(ids)} tokens, and the model sees {block_size} at once: say it in fewer")
    return ids

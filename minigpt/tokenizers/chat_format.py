"""How a conversation is written as tokens.

    <|user|>reverse: moon<|assistant|>noom<|end|>

A special token says who speaks, and <|end|> ends each answer. `encode` never returns a special token for ordinary text,
so a user cannot forge one by typing its name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from minigpt.errors import DataError
from minigpt.tokenizers.base import Tokenizer

Role = Literal["system", "user", "assistant"]
ROLE_TOKENS: dict[Role, str] = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
END_OF_ANSWER = "<|end|>"
CHAT_TOKENS = (*ROLE_TOKENS.values(), END_OF_ANSWER)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        text: what they say.
        is_learned: False for an answer that a training reads and does not learn.
    """

    role: Role
    text: str
    is_learned: bool = True


class ChatTemplate:
    """Encodes conversations as token ids.

    Attributes:
        tokenizer: a tokenizer that has all of `CHAT_TOKENS`.
        role_ids: the id of each role's token.
        end: the id of the token after each answer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Look up the ids of the chat tokens.

        Raises:
            DataError: the tokenizer lacks one of them.
        """
        missing = [name for name in CHAT_TOKENS if name not in tokenizer.special_tokens]
        if missing:
            raise DataError(
                f"this model knows no instructions: its tokenizer has no token {missing[0]}; fine-tune it on some"
            )
        self.tokenizer = tokenizer
        self.role_ids = {role: tokenizer.special_tokens[name] for role, name in ROLE_TOKENS.items()}
        self.end = tokenizer.special_tokens[END_OF_ANSWER]

    def encode(self, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
        """Encode turns for training.

        Args:
            turns: the conversation so far.

        Returns:
            The token ids, and for each id whether the loss counts it: True within answers that are learned and for the
            token that ends them.
        """
        ids: list[int] = []
        counted: list[bool] = []
        for turn in turns:
            text = self.tokenizer.encode(turn.text)
            is_answer = turn.role == "assistant"
            ids += [self.role_ids[turn.role], *text] + [self.end] * is_answer
            counted += [False] + [is_answer and turn.is_learned] * (len(text) + is_answer)
        return ids, counted

    def encode_prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Encode turns for generation: the ids end with the assistant's token, after which the model answers."""
        ids, _ = self.encode(turns)
        return [*ids, self.role_ids["assistant"]]

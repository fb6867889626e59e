"""A conversation for the tests of examples and of the chat format."""

from minigpt.finetuning.examples import Example
from minigpt.tokenizers.chat_format import Turn

CONVERSATION = Example(
    (
        Turn("system", "Be brief."),
        Turn("user", "Hi"),
        Turn("assistant", "Ho"),
        Turn("user", "a?"),
        Turn("assistant", "b"),
    )
)

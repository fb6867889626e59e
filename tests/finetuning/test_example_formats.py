"""Conversations in the formats of other programs are read, and fields that change what they mean are never ignored."""

from typing import Any

import pytest

from minigpt.errors import DataError
from minigpt.finetuning.dpo_dataset import parse_pair
from minigpt.finetuning.examples import Example, parse_example
from minigpt.finetuning.vocabulary_resize import extend_tokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS, ChatTemplate, Turn

HI = Example((Turn("system", "be kind"), Turn("user", "hi"), Turn("assistant", "ho")))
SYSTEM = {"role": "system", "content": "be kind"}
USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [SYSTEM, USER, ANSWER]},
        {"messages": [USER, ANSWER], "system": "be kind", "tools": [], "id": 3},
        {"conversations": [{"from": "system", "value": "be kind"}, *SHAREGPT]},
        {"conversations": SHAREGPT, "system": "be kind"},
        {"conversations": [SYSTEM, USER, ANSWER]},
        {"prompt": "hi", "completion": "ho", "system": "be kind", "weight": 1},
        {"prompt": [SYSTEM, USER], "completion": [ANSWER]},
        {"instruction": "hi", "output": "ho", "system": "be kind", "history": None},
        {
            "messages": [
                SYSTEM,
                USER | {"content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
                ANSWER,
            ]
        },
        {"messages": [SYSTEM, USER | {"weight": 0}, ANSWER | {"weight": 1, "tool_calls": None}]},
    ],
)
def test_every_format_of_a_conversation_is_read(row: dict) -> None:
    assert parse_example(row, "line 1") == HI


def test_a_history_comes_before_the_instruction() -> None:
    row = {"instruction": "and", "input": "you?", "output": "ho", "history": [["a", "b"], ["c", "d"]]}
    turns = parse_example(row, "line 1").turns
    assert [turn.text for turn in turns] == ["a", "b", "c", "d", "and\nyou?", "ho"]
    assert [turn.role for turn in turns] == ["user", "assistant"] * 3


def test_an_answer_of_weight_0_is_read_and_not_learned() -> None:
    skipped = {"role": "assistant", "content": "bad", "weight": 0}
    example = parse_example({"messages": [USER, skipped, USER, ANSWER, USER, skipped]}, "line 1")
    assert [turn.text for turn in example.turns] == ["hi", "bad", "hi", "ho"]  # nothing is learned from the rest
    assert example.as_json != parse_example({"messages": [USER, skipped | {"weight": 1}, USER, ANSWER]}, "").as_json
    tokenizer, _ = extend_tokenizer(CharTokenizer.from_text("hi ho bad"), CHAT_TOKENS)
    ids, counted = ChatTemplate(tokenizer).encode(example.turns)
    assert tokenizer.decode([i for i, counts in zip(ids, counted, strict=True) if counts]) == "ho<|end|>"


MESSAGES = [USER, ANSWER]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": MESSAGES, "tools": [{}]}, "the field 'tools' changes what the example means"),
        ({"messages": MESSAGES, "weight": 0}, "the field 'weight'"),
        ({"messages": MESSAGES, "history": [["a", "b"]]}, "the field 'history'"),
        ({"messages": [USER, ANSWER | {"tool_calls": [{}]}]}, "the field 'tool_calls'"),
        ({"messages": [USER, ANSWER | {"train": False}]}, "the field 'train'"),
        ({"messages": [USER, ANSWER | {"weight": 0.5}]}, "the weight of a message of the assistant is 0.5"),
        ({"messages": [USER | {"weight": 1}, ANSWER]}, "the weight of a message of the user is 1"),
        ({"messages": [USER, ANSWER | {"weight": 0}]}, "every answer has the weight 0"),
        ({"messages": [SYSTEM, *MESSAGES], "system": "be quick"}, "the roles are system, system, user"),
        ({"messages": MESSAGES, "system": 3}, "a message needs a role"),
        ({"messages": [USER | {"content": [{"type": "image_url"}]}, ANSWER]}, "a part of a content is 'image_url'"),
        ({"messages": [USER | {"content": ["hi"]}, ANSWER]}, "a part of a content is 'str'"),
        ({"conversations": [{"from": "tool", "value": "x"}, *SHAREGPT]}, "a message needs a role"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "history must be a list of pairs"),
        ({"instruction": "a", "output": "b", "history": "a"}, "history must be a list of pairs"),
        ({"prompt": "a", "completion": None}, "a content that is text"),
        ({"prompt": "a", "chosen": "b"}, "has none of messages, conversations, completion and prompt, instruction and"),
    ],
)
def test_a_field_that_cannot_be_honored_is_refused_by_its_name(row: dict, message: str) -> None:
    with pytest.raises(DataError, match=f"^line 7.*{message}"):
        parse_example(row, "line 7")


@pytest.mark.parametrize("more", [{"system": "be kind"}, {"history": [["a", "b"]]}, {"weight": 0}, {"tools": [1]}])
def test_a_field_of_a_pair_that_cannot_be_honored_is_refused_by_its_name(more: dict[str, Any]) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert parse_pair(pair | dict.fromkeys(more), "line 7").chosen.answer == "b"
    with pytest.raises(DataError, match=f"line 7: the field '{next(iter(more))}'"):
        parse_pair(pair | more, "line 7")

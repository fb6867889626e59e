"""`/v1/chat/completions`, by the official client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import TOKEN, LiveServer

import minigpt


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def test_the_answer_is_that_of_a_chat_with_the_run(client: openai.OpenAI, served_folder: Path) -> None:
    done = client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "sea"}], max_completion_tokens=50, seed=4, temperature=0.7
    )
    expected = minigpt.load(served_folder / "chat").chat(max_new_tokens=50, seed=4).ask("sea")
    assert done.choices[0].message.content == expected
    assert done.choices[0].message.role == "assistant" and done.object == "chat.completion"


def test_earlier_turns_and_the_system_s_are_read(client: openai.OpenAI) -> None:
    def ask(*messages: tuple[str, Any]) -> str | None:
        turns: Any = [{"role": role, "content": content} for role, content in messages]
        done = client.chat.completions.create(model="chat", messages=turns, max_tokens=40, temperature=0)
        return done.choices[0].message.content

    question = ("user", "sea")
    alone = ask(question)
    assert ask(("user", [{"type": "text", "text": "s"}, {"type": "text", "text": "ea"}])) == alone
    assert ask(("user", "bell"), ("assistant", "the"), question) != alone
    assert ask(("system", "wind"), question) != alone
    assert ask(("developer", "wind"), question) == ask(("system", "wind"), question)


def test_a_model_without_instructions_continues_the_last_message(client: openai.OpenAI) -> None:
    text = client.completions.create(model="trained", prompt="sea", max_tokens=30, seed=1).choices[0].text
    messages: Any = [{"role": "user", "content": "sea"}]
    done = client.chat.completions.create(model="trained", messages=messages, max_tokens=30, seed=1)
    assert done.choices[0].message.content == text


def test_a_streamed_answer_is_the_plain_one(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "sea"}]
    wanted: dict[str, Any] = {"model": "chat", "messages": messages, "max_tokens": 40, "seed": 2, "n": 2}
    wanted |= {"logprobs": True, "top_logprobs": 3}
    plain = client.chat.completions.create(**wanted)
    chunks = list(client.chat.completions.create(**wanted, stream=True, stream_options={"include_usage": True}))
    for index in range(2):
        pieces = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert pieces[0].delta.role == "assistant" and all(piece.delta.role is None for piece in pieces[1:])
        assert "".join(piece.delta.content or "" for piece in pieces) == plain.choices[index].message.content
        assert pieces[-1].finish_reason == plain.choices[index].finish_reason
        scores = [score for piece in pieces if piece.logprobs for score in piece.logprobs.content or []]
        expected = plain.choices[index].logprobs
        assert expected and scores == expected.content and all(len(score.top_logprobs) == 3 for score in scores)
    assert chunks[-1].usage == plain.usage


WRONG = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": ["hello"]}, "messages[0]"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "日"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "sea " * 100}]}, "messages"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "messages"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[str(fields)[:60] for fields, _ in WRONG])
def test_a_wrong_field_is_named(server: LiveServer, fields: dict[str, Any], param: str) -> None:
    right = {"model": "chat", "messages": [{"role": "user", "content": "sea"}]}
    answer = server.post("/v1/chat/completions", **right | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

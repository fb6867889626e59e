"""`/v1/completions`, by the official client and by plain requests."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from live_server import TOKEN, LiveServer
from torch.nn import functional as F

from minigpt.runs.run import Run


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def test_the_text_is_that_of_the_run(client: openai.OpenAI, trained: Run) -> None:
    done = client.completions.create(model="trained", prompt="KEEPER:", max_tokens=40, seed=3, temperature=0.8)
    expected = trained.generate("KEEPER:", max_new_tokens=40, seed=3, temperature=0.8)
    assert "KEEPER:" + done.choices[0].text == expected
    assert done.choices[0].finish_reason == "length" and done.object == "text_completion" and done.model == "trained"
    usage = done.usage
    assert usage and (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 40, 47)


@pytest.mark.parametrize("model", ["trained", "chars", "modern", "bigram", "bpe", "ngram:trained"])
def test_a_streamed_text_is_the_plain_one(client: openai.OpenAI, model: str) -> None:
    wanted: dict[str, Any] = {"model": model, "prompt": "sea", "max_tokens": 50, "seed": 1, "top_p": 0.9}
    plain = client.completions.create(**wanted)
    chunks = list(client.completions.create(**wanted, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == plain.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage == plain.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_scores_do_not_change_the_text(client: openai.OpenAI) -> None:
    wanted: dict[str, Any] = {"model": "bpe", "prompt": "the sea", "max_tokens": 30, "seed": 5}
    with_scores = client.completions.create(**wanted, logprobs=2).choices[0]
    assert with_scores.text == client.completions.create(**wanted).choices[0].text
    assert with_scores.logprobs and len(with_scores.logprobs.tokens or []) == 30


def test_several_prompts_and_choices_come_in_order(client: openai.OpenAI) -> None:
    prompts = ["sea", "bell"]
    done = client.completions.create(model="trained", prompt=prompts, max_tokens=20, n=2, seed=7)
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    alone = [
        client.completions.create(model="trained", prompt=prompt, max_tokens=20, seed=seed).choices[0].text
        for prompt in prompts
        for seed in (7, 8)
    ]
    assert [choice.text for choice in done.choices] == alone
    assert done.usage and done.usage.prompt_tokens == len("seabell")


def test_a_prompt_of_token_ids_is_the_prompt_of_their_text(client: openai.OpenAI, trained: Run) -> None:
    ids = trained.tokenizer.encode("the sea")
    wanted: dict[str, Any] = {"model": "trained", "max_tokens": 20, "seed": 1, "echo": True}
    by_text = client.completions.create(prompt="the sea", **wanted).choices[0].text
    assert client.completions.create(prompt=ids, **wanted).choices[0].text == by_text
    assert client.completions.create(prompt=[ids, ids], **wanted).choices[1].text == by_text
    assert by_text.startswith("the sea")


@pytest.mark.parametrize("stop", ["e", ["zzzz", "he", "ea"]])
def test_a_text_ends_before_a_stop_sequence(client: openai.OpenAI, stop: Any) -> None:
    wanted: dict[str, Any] = {"model": "trained", "prompt": "KEEPER:", "max_tokens": 100, "seed": 2}
    whole = client.completions.create(**wanted).choices[0].text
    stops = [stop] if isinstance(stop, str) else stop
    expected = whole[: min(place for each in stops if (place := whole.find(each)) >= 0)]
    done = client.completions.create(**wanted, stop=stop).choices[0]
    assert (done.text, done.finish_reason) == (expected, "stop")
    chunks = client.completions.create(**wanted, stop=stop, stream=True, logprobs=0)
    pieces = [chunk.choices[0] for chunk in chunks]
    assert "".join(piece.text for piece in pieces) == expected and pieces[-1].finish_reason == "stop"
    tokens = [token for piece in pieces if piece.logprobs for token in piece.logprobs.tokens or []]
    assert "".join(tokens) == expected


@pytest.mark.parametrize("length", [1, 5, 32, 33, 34, 100])
def test_an_echoed_prompt_is_scored_from_at_most_block_size_tokens(
    client: openai.OpenAI, chars_run: Run, text: str, length: int
) -> None:
    prompt = text[:length]
    done = client.completions.create(model="chars", prompt=prompt, max_tokens=0, echo=True, logprobs=1).choices[0]
    ids = torch.tensor(chars_run.tokenizer.encode(prompt))
    expected = [None]
    for place in range(1, length):
        with torch.no_grad():
            logits = chars_run.model(ids[max(0, place - 32) : place][None])[0][0, -1]
        expected.append(float(F.log_softmax(logits.double(), dim=-1)[ids[place]]))
    assert done.text == prompt and done.logprobs
    assert done.logprobs.tokens == list(prompt) and done.logprobs.text_offset == list(range(length))
    assert done.logprobs.token_logprobs == [None, *(pytest.approx(value, abs=1e-4) for value in expected[1:])]
    for score, best in zip(done.logprobs.token_logprobs[1:], (done.logprobs.top_logprobs or [])[1:], strict=True):
        assert len(best) == 1 and max(best.values()) >= score - 1e-9


def test_without_a_seed_two_texts_differ(client: openai.OpenAI) -> None:
    texts = {client.completions.create(model="chars", prompt="s", max_tokens=100).choices[0].text for _ in range(2)}
    assert len(texts) == 2


WRONG = [
    ({"prompt": 5}, "prompt"),
    ({"prompt": [1.5]}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [10_000]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": "日本"}, "prompt"),
    ({"prompt": ["a"] * 17}, "prompt"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": 0}, "top_k"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"prompt": ["a", "b"], "n": 9}, "n"),
    ({"best_of": 3}, "best_of"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"logprobs": 21}, "logprobs"),
    ({"stop": 5}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"echo": "yes"}, "echo"),
    ({"stream": 1}, "stream"),
    ({"stream_options": 1}, "stream_options"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"suffix": "end"}, "suffix"),
    ({"model": 5}, "model"),
    ({"model": None}, "model"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_a_wrong_field_is_named(server: LiveServer, fields: dict[str, Any], param: str) -> None:
    answer = server.post("/v1/completions", **{"model": "trained", "prompt": "a", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert error["message"] and "\n" not in error["message"]


def test_neutral_values_of_other_fields_are_accepted(server: LiveServer) -> None:
    neutral: dict[str, Any] = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "user": "me"}
    assert server.post("/v1/completions", model="chars", prompt="a", max_tokens=1, **neutral).status_code == 200


@pytest.mark.parametrize("name", ["nobody", "../trained", "/etc/passwd", "", "a/../trained", "\0", "ngram:nobody"])
def test_a_model_that_is_not_served_is_not_found(server: LiveServer, name: str) -> None:
    answer = server.post("/v1/completions", model=name, prompt="a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_broken_run_is_refused_with_its_reason(server: LiveServer) -> None:
    answer = server.post("/v1/completions", model="broken", prompt="a")
    assert answer.status_code == 400 and "tokenizer.json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'"text"', b"\xff", b"[" * 100_000, b'{"prompt": "\\ud800"}'])
def test_a_body_that_is_no_json_object_is_refused(server: LiveServer, body: bytes) -> None:
    answer = server.client.post("/v1/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_models_are_listed(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"trained", "chars", "bpe", "chat", "ngram:trained"} <= names and "broken" not in names
    assert client.models.retrieve("chars").id == "chars"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")

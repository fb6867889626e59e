"""The playground's API on a run of every kind: its figures are those of the functions in minigpt.studies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from live_server import LiveServer, start_server
from study_runs import KINDS, TRANSFORMERS, make_study_run

import minigpt
from minigpt import studies
from minigpt.config import SamplingConfig
from minigpt.runs.run import Run
from minigpt.studies.look.memorization import find_verbatim
from minigpt.web.served_runs import ServedRuns
from minigpt.web.settings import Limits

STORED = tuple(kind for kind in KINDS if kind not in ("ngram", "lora"))  # the others are the model of another's folder
TEXT = "to be, or not to be: that"
SAMPLING = {"temperature": 0.8, "top_k": 9, "top_p": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for kind in STORED:
        make_study_run(kind, folder / kind)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> ServedRuns:
    return ServedRuns(folder=folder)


@pytest.fixture(scope="module")
def api(served: ServedRuns) -> Iterator[LiveServer]:
    with start_server(served, Limits(prompt_characters=1000, max_tokens=600)) as live:
        yield live


@pytest.fixture(params=[*STORED, "ngram:gpt"])
def run(request: pytest.FixtureRequest, served: ServedRuns) -> tuple[str, Run]:
    """A run and its name."""
    return request.param, served.open(request.param)


def ask(api: LiveServer, path: str, model: str, **fields: Any) -> Any:
    answer = api.post(f"/api/v1/{path}", model=model, **fields)
    assert answer.status_code == 200, answer.json()
    return answer.json()


def generate(api: LiveServer, path: str = "generate", **fields: Any) -> tuple[list[dict[str, Any]], str]:
    """Return the tokens of all events of a streamed answer, and why it ended."""
    *events, end = api.stream(f"/api/v1/{path}", **fields)
    return [token for event in events for token in event["tokens"]], end["finish_reason"]


def tokens_of(run: Run, ids: list[int]) -> list[dict[str, Any]]:
    return [{"id": i, "text": run.tokenizer.decode([i])} for i in ids]


def test_a_text_has_the_tokens_of_the_runs_tokenizer(api: LiveServer, run: tuple[str, Run]) -> None:
    name, opened = run
    assert ask(api, "tokenize", name, text=TEXT) == {"tokens": tokens_of(opened, opened.tokenizer.encode(TEXT))}
    assert ask(api, "tokenize", name, text="") == {"tokens": []}


def test_a_part_of_a_character_is_a_replacement_character(api: LiveServer, served: ServedRuns) -> None:
    tokens = ask(api, "tokenize", "bpe", text="漢")["tokens"]
    assert [token["text"] for token in tokens] == ["\ufffd"] * 3
    run = served.open("bpe")
    first = [token["id"] for token in tokens[:2]]
    answer = ask(api, "next", "bpe", ids=first, top=100)
    likely = studies.next_token_distribution(run, first).probabilities
    assert [token["id"] for token in answer["candidates"]] == likely.topk(100).indices.tolist()


@pytest.mark.parametrize("text", ["", TEXT])
def test_the_candidates_of_the_next_token(api: LiveServer, run: tuple[str, Run], text: str) -> None:
    name, opened = run
    answer = ask(api, "next", name, text=text, top=5, **SAMPLING)
    expected = studies.next_token_distribution(opened, text, **SAMPLING)
    best = expected.probabilities.topk(5).indices
    assert [token["id"] for token in answer["candidates"]] == best.tolist()
    assert tokens_of(opened, best.tolist()) == [{"id": t["id"], "text": t["text"]} for t in answer["candidates"]]
    assert [t["probability"] for t in answer["candidates"]] == expected.probabilities[best].tolist()
    assert [t["filtered_probability"] for t in answer["candidates"]] == expected.filtered[best].tolist()
    assert (answer["entropy"], answer["filtered_entropy"]) == (expected.entropy, expected.filtered_entropy)
    assert answer["filtered_entropy"] < answer["entropy"]
    assert len(ask(api, "next", name, text=text)["candidates"]) == 20


def test_generated_tokens_are_those_of_the_run_and_bring_their_probabilities(
    api: LiveServer, run: tuple[str, Run]
) -> None:
    name, opened = run
    tokens, end = generate(api, model=name, text=TEXT, max_tokens=40, seed=3, **SAMPLING)
    config = SamplingConfig(max_new_tokens=40, seed=3, **SAMPLING)
    expected = list(studies.stream_tokens(opened, opened.encode_prompt(TEXT), config))
    assert [(t["id"], t["rank"]) for t in tokens] == [(t.id, t.rank) for t in expected]
    assert [t["probability"] for t in tokens] == pytest.approx([t.probability for t in expected])
    assert [t["text"] for t in tokens] == [opened.tokenizer.decode([t.id]) for t in expected]
    assert end == "length"


def test_token_ids_are_continued_as_the_text_is(api: LiveServer, served: ServedRuns) -> None:
    ids = served.open("gpt").encode_prompt(TEXT)
    fields = {"model": "gpt", "max_tokens": 9, "seed": 1}
    by_text, by_ids = (generate(api, **fields, **{name: value}) for name, value in (("text", TEXT), ("ids", ids)))
    assert by_text == by_ids


def test_a_special_token_ends_the_text(api: LiveServer, served: ServedRuns) -> None:
    run = served.open("bpe")
    (end,) = run.tokenizer.special_tokens.values()
    written = list(studies.stream_tokens(run, [0], SamplingConfig(max_new_tokens=60, temperature=3.0, seed=1), [end]))
    assert 0 < len(written) < 60
    tokens, reason = generate(api, model="bpe", ids=[0], max_tokens=60, temperature=3.0, seed=1)
    assert [token["id"] for token in tokens] == [token.id for token in written]
    assert reason == "stop"


def test_the_prediction_of_each_token(api: LiveServer, run: tuple[str, Run]) -> None:
    name, opened = run
    answer = ask(api, "positions", name, text=TEXT)
    expected = studies.predict_text(opened, TEXT)
    assert answer["tokens"] == tokens_of(opened, opened.tokenizer.encode(TEXT))
    assert answer["losses"] == [None, *expected.losses.tolist()]
    assert answer["probabilities"] == [None, *expected.probabilities.tolist()]
    assert answer["ranks"] == [None, *expected.ranks.tolist()]
    assert answer["mean_loss"] == expected.losses.mean().item()
    nothing: dict[str, Any] = {"losses": [], "probabilities": [], "ranks": [], "mean_loss": None}
    assert ask(api, "positions", name, text="") == {"tokens": [], **nothing}
    assert ask(api, "positions", name, ids=[1])["ranks"] == [None]


def test_attention_weights_and_layers_of_the_lens(api: LiveServer, run: tuple[str, Run]) -> None:
    name, opened = run
    ids = opened.encode_prompt(TEXT)[-opened.config.model.block_size :]
    if name not in TRANSFORMERS:
        for view, reason in (("attention", "no attention heads"), ("lens", "no blocks")):
            answer = api.post(f"/api/v1/{view}", model=name, text=TEXT)
            assert answer.status_code == 400 and reason in answer.json()["error"]["message"]
        return
    answer = ask(api, "attention", name, text=TEXT)
    assert answer["tokens"] == tokens_of(opened, ids)
    maps = studies.attention_maps(opened, TEXT)
    for block, head in ((0, 1), (1, 0)):
        for t, row in enumerate(answer["weights"][block][head]):
            assert row == pytest.approx(maps[block, head, t, : t + 1].tolist(), abs=5.1e-5)
            assert all(round(weight, 4) == weight for weight in row)
    answer = ask(api, "lens", name, text=TEXT, top=3)
    lens = studies.logit_lens(opened, TEXT)
    assert answer["tokens"] == tokens_of(opened, ids)
    assert [layer["name"] for layer in answer["layers"]] == ["embedding", "block 0", "block 1"]
    for layer, logits in zip(answer["layers"], lens.logits, strict=True):
        for t, position in enumerate(layer["positions"]):
            p = torch.softmax(logits[t].double(), dim=-1)
            assert [token["probability"] for token in position["top"]] == p.topk(3).values.tolist()
            assert [token["id"] for token in position["top"]] == p.topk(3).indices.tolist()
            target = position["target"]
            if t == len(ids) - 1:
                assert target is None
            else:
                assert target["probability"] == pytest.approx(p[ids[t + 1]].item(), rel=1e-5)
                assert target["rank"] == 1 + (p > p[ids[t + 1]]).sum()


def test_no_more_than_128_tokens_of_a_text_are_looked_at(api: LiveServer, folder: Path) -> None:
    run = make_study_run("gpt", folder / "long", block_size=200)
    text = (TEXT * 10)[:190]
    for view in ("attention", "lens"):
        answer = ask(api, view, "long", text=text)
        assert answer == ask(api, view, "long", text=text[-128:])
        assert answer["tokens"] == tokens_of(run, run.tokenizer.encode(text[-128:]))


def test_an_empty_text_becomes_the_start_token(api: LiveServer, served: ServedRuns) -> None:
    start = tokens_of(served.open("gpt"), served.open("gpt").encode_prompt(""))
    assert ask(api, "attention", "gpt", text="")["weights"][0][0] == [[1.0]]
    assert ask(api, "lens", "gpt", text="")["tokens"] == ask(api, "attention", "gpt", text="")["tokens"] == start


@pytest.mark.parametrize("name", [name for name in STORED if name in TRANSFORMERS])
def test_heads_are_off_for_one_request_only(api: LiveServer, served: ServedRuns, name: str) -> None:
    run, off = served.open(name), [(0, 1), (1, 0), (0, 1)]
    whole = ask(api, "positions", name, text=TEXT)
    assert ask(api, "positions", name, text=TEXT, heads_off=off)["losses"][1:] == (
        studies.predict_text(run, TEXT, heads_off=off).losses.tolist()
    )
    expected = studies.next_token_distribution(run, TEXT, heads_off=off)
    assert ask(api, "next", name, text=TEXT, heads_off=off)["entropy"] == expected.entropy
    tokens, _ = generate(api, model=name, text=TEXT, max_tokens=20, seed=1, heads_off=off)
    config = SamplingConfig(max_new_tokens=20, seed=1)
    written = list(studies.stream_tokens(run, run.encode_prompt(TEXT), config, heads_off=off))
    assert [token["id"] for token in tokens] == [token.id for token in written]
    assert ask(api, "positions", name, text=TEXT) == whole


@pytest.mark.parametrize("name", ["gpt", "bpe", "bigram", "ngram:gpt"])
def test_passages_of_the_training_text_are_found(api: LiveServer, served: ServedRuns, name: str) -> None:
    run = served.open(name)
    text = "be that: Whether 'tis nobler in the mind to er not"
    answer = ask(api, "memorization", name, text=text)
    source = run.tokenizer.decode(run.dataset().train.tolist())
    lengths = find_verbatim(text, source).tolist()
    assert answer["tokens"] == tokens_of(run, run.tokenizer.encode(text))
    assert answer["lengths"] == lengths and max(lengths) > 20
    assert answer["shares"] == {str(n): sum(each >= n for each in lengths) / len(text) for n in (10, 20, 40)}
    empty = ask(api, "memorization", name, text="")
    assert empty == {"tokens": [], "lengths": [], "shares": {"10": 0.0, "20": 0.0, "40": 0.0}}


def test_a_run_without_its_text_has_no_memorization(api: LiveServer, folder: Path) -> None:
    make_study_run("modern", folder / "lost")
    (folder / "lost" / "text.txt").unlink()
    answer = api.post("/api/v1/memorization", model="lost", text=TEXT)
    assert answer.status_code == 400 and "there is no such file" in answer.json()["error"]["message"]


def test_a_chat_answers_as_the_run_does(server: LiveServer, served_folder: Path) -> None:
    run = minigpt.load(served_folder / "chat")
    messages = [{"role": "user", "content": "sea"}]
    tokens, reason = generate(server, "chat", model="chat", messages=messages, max_tokens=30, seed=4)
    assert "".join(token["text"] for token in tokens) == run.chat(temperature=1.0, max_new_tokens=30, seed=4).ask("sea")
    assert reason == ("length" if len(tokens) == 30 else "stop")


BAD = (
    ("next", {"model": "none", "text": "to"}, 404, "model", "there is no run 'none'"),
    ("next", {"text": "to"}, 400, "model", "model must be a text, not None"),
    ("next", {"model": "gpt"}, 400, "text", "text must be a text, not None"),
    ("next", {"model": "gpt", "text": ["to"]}, 400, "text", "text must be a text"),
    ("next", {"model": "gpt", "text": "to Ω"}, 400, "text", "the character 'Ω' .* is not among"),
    ("next", {"model": "gpt", "text": "o" * 1001}, 413, "text", "1,001 characters, and the limit is 1,000"),
    ("next", {"model": "gpt", "text": "to", "ids": [1]}, 400, "ids", "both text and ids"),
    ("next", {"model": "gpt", "ids": "to"}, 400, "ids", "ids must be a list of token ids, not 'to'"),
    ("next", {"model": "gpt", "ids": []}, 400, "ids", "ids has no token ids"),
    ("next", {"model": "gpt", "ids": [1, 99]}, 400, "ids", "ids has the token id '99', and the ids go from 0 to"),
    ("next", {"model": "gpt", "ids": [True]}, 400, "ids", "ids has the token id 'True'"),
    ("next", {"model": "gpt", "ids": [1] * 1001}, 413, "ids", "1,001 tokens, and the limit is 1,000"),
    ("next", {"model": "gpt", "text": "to", "top": 0}, 400, "top", "top must be a whole number from 1 to 100, not 0"),
    ("next", {"model": "gpt", "text": "to", "top": "2"}, 400, "top", "top must be a whole number"),
    ("next", {"model": "gpt", "text": "to", "temperature": -1}, 400, "temperature", "temperature must be a number"),
    ("next", {"model": "gpt", "text": "to", "top_p": 2}, 400, "top_p", "top_p must be a number"),
    (
        "next",
        {"model": "gpt", "text": "to", "heads_off": 3},
        400,
        "heads_off",
        r"a list of pairs \[block, head\], not 3",
    ),
    ("next", {"model": "gpt", "text": "to", "heads_off": [3]}, 400, "heads_off", "one entry is 3"),
    ("next", {"model": "gpt", "text": "to", "heads_off": [[0, True]]}, 400, "heads_off", r"one entry is \[0, True\]"),
    ("next", {"model": "gpt", "text": "to", "heads_off": [[0, 2]]}, 400, "heads_off", "no head 2 in block 0"),
    ("next", {"model": "bigram", "text": "t", "heads_off": [[0, 0]]}, 400, "heads_off", "no attention heads"),
    ("generate", {"model": "gpt", "text": "t", "max_tokens": 601}, 400, "max_tokens", "from 1 to 600, not 601"),
    ("generate", {"model": "gpt", "text": "t", "seed": -1}, 400, "seed", "seed must be a whole number"),
    ("generate", {"model": "ngram:gpt", "text": "t", "heads_off": [[0, 0]]}, 400, "heads_off", "no attention heads"),
    ("positions", {"model": "gpt", "text": "to", "heads_off": [[2, 0]]}, 400, "heads_off", "no head 0 in block 2"),
    ("tokenize", {"model": "gpt", "ids": [1]}, 400, "ids", "tokenize takes a text and no ids"),
    ("memorization", {"model": "gpt", "ids": [1]}, 400, "ids", "memorization takes a text and no ids"),
    ("chat", {"model": "gpt", "messages": []}, 400, "messages", "messages must be a list of messages"),
    ("chat", {"model": "gpt", "messages": [{"role": "user", "content": "Ω"}]}, 400, "messages", "the character 'Ω'"),
)


@pytest.mark.parametrize(("path", "fields", "status", "param", "message"), BAD)
def test_a_wrong_field_is_named(
    api: LiveServer, path: str, fields: dict[str, Any], status: int, param: str, message: str
) -> None:
    answer = api.post(f"/api/v1/{path}", **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (status, "invalid_request_error", param), error
    with pytest.raises(ValueError, match=message):
        raise ValueError(error["message"])


@pytest.mark.parametrize(
    "path", ["tokenize", "generate", "next", "chat", "positions", "attention", "lens", "memorization"]
)
def test_every_request_needs_the_token_and_a_json_object(api: LiveServer, path: str) -> None:
    assert api.client.post(f"/api/v1/{path}", headers={"Authorization": "Bearer no"}).status_code == 401
    answer = api.client.post(f"/api/v1/{path}", content=b"[1]")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert api.client.get(f"/api/v1/{path}").status_code == 405

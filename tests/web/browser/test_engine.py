"""The engine of the offline page computes what the program computes: tokens, logits, texts, and what the views show."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import Site
from playwright.sync_api import Browser
from random_runs import make_random_run
from torch.nn import functional as F

import minigpt
from minigpt.runs.run import Run
from minigpt.studies import attention_maps, logit_lens, next_token_distribution, predict_text
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS
from minigpt.web.offline_model import copy_for_page, describe_model

pytestmark = pytest.mark.browser
Call = Callable[..., Any]
GPT2 = {"activation": "gelu", "qkv_bias": True, "tied_head": True}
KINDS: dict[str, dict[str, Any]] = {
    "gpt": {},
    "one position": {"block_size": 1},
    "modern": {"architecture": "modern"},
    "modern, one pair": {"architecture": "modern", "n_embd": 6, "n_head": 3},
    "bigram": {"architecture": "bigram", "block_size": 8},
    "gpt2, bpe": GPT2,
    "gelu, bpe": {"activation": "gelu_exact", "n_head": 1, "n_embd": 20},
    "lecture": {"implementation": "lecture"},
    "4 bits": {"quantization": "nf4"},
}
OPEN = """async ([description, weights, function_, argument]) => {
  const { decodeBase64, openModelFile } = await import("/static/engine/model_file.js");
  const { OfflineBackend } = await import("/static/engine/offline_backend.js");
  const file = JSON.parse(description);
  const { model, tokenizer } = openModelFile(file, decodeBase64(weights));
  return FUNCTION({ model, tokenizer, backend: new OfflineBackend(file, model, tokenizer) }, argument);
}"""
COLLECT = """async ({ backend }, request) => {
  const ids = [];
  for await (const event of backend.generate(request)) ids.push(...(event.tokens ?? []).map((token) => token.id));
  return ids;
}"""


@pytest.fixture(scope="module")
def call(chromium: Browser, small_site: Site) -> Iterator[Call]:
    """Return a function that calls a JavaScript function with a run's model, tokenizer and backend."""
    page = chromium.new_page()
    page.goto(small_site.address)

    def call_function(run: Run, function: str, argument: Any = None, quantize: str | None = None) -> Any:
        description, weights = describe_model(run, copy_for_page(run, quantize))
        given = [json.dumps(description), base64.b64encode(weights).decode(), "", argument]
        return page.evaluate(OPEN.replace("FUNCTION", f"({function})"), given)

    yield call_function
    page.close()


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, text: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of each kind."""
    kind = request.param
    tokenizer = BPETokenizer.train(text, 300) if "bpe" in kind else CharTokenizer.from_text(text)
    settings = {"block_size": 24, "n_embd": 24, "n_head": 3, "n_layer": 2} | KINDS[kind]
    return make_random_run(tmp_path_factory.mktemp("engine") / "run", tokenizer, **settings)


def test_the_logits_are_those_of_pytorch(run: Run, text: str, call: Call) -> None:
    ids = run.tokenizer.encode(text)[: run.config.model.block_size]
    found = call(run, "({ model }, ids) => Array.from(model.forward(ids, model.createCache()))", ids)
    with torch.no_grad():
        expected = run.model(torch.tensor([ids]))[0]
    assert torch.tensor(found).view_as(expected).allclose(expected, rtol=0, atol=1e-4)


def test_a_cache_changes_nothing(run: Run, text: str, call: Call) -> None:
    ids = run.tokenizer.encode(text)[: run.config.model.block_size]
    read = """({ model }, ids) => {
      const [cache, cut] = [model.createCache(), Math.floor(ids.length / 2)];
      const parts = [ids.slice(0, cut), ...ids.slice(cut).map((id) => [id])].filter((part) => part.length > 0);
      return parts.flatMap((part) => Array.from(model.forward(part, cache)));
    }"""
    whole = call(run, "({ model }, ids) => Array.from(model.forward(ids, model.createCache()))", ids)
    assert call(run, read, ids) == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.7, "top_k": 5, "seed": 2},
        {"temperature": 1.3, "top_p": 0.6, "seed": 2**32 + 3},
    ],
    ids=str,
)
def test_the_tokens_are_those_of_the_program_past_block_size_too(
    run: Run, call: Call, sampling: dict[str, Any]
) -> None:
    prompt = run.tokenizer.encode("the sea")
    config = minigpt.config.SamplingConfig(max_new_tokens=500, **sampling)
    found = call(run, COLLECT, {"model": "", "ids": prompt, "max_tokens": 500, **sampling})
    assert found == list(run.stream_ids(prompt, config))


def test_text_becomes_the_same_tokens(run: Run, text: str, call: Call) -> None:
    samples = [text[:300], "", " ", "\n\n  the sea", text[-50:]]
    if isinstance(run.tokenizer, BPETokenizer):
        samples += ["It's we'll 'LL don't", "日本 🙂 é", "a\u00a0b\u3000\u0085c\ufeff\x1c d", "12345 x1!?\r\n\t "]
    found = call(run, "({ tokenizer }, samples) => samples.map((text) => tokenizer.encode(text))", samples)
    assert found == [run.tokenizer.encode(sample) for sample in samples]


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_each_pattern_cuts_text_in_the_same_way(pattern: str, text: str, tmp_path: Path, call: Call) -> None:
    source = text[:3000] + " I'LL it'ſ 1234567 \r\n\r\n   \n x\u0085y \u2028 !!\n\n... ünïcödé 日本語 "
    run = make_random_run(tmp_path / "run", BPETokenizer.train(source, 350, pattern=pattern), block_size=8)
    samples = [source, *(source[start : start + 40] for start in range(len(source) - 120, len(source)))]
    found = call(run, "({ tokenizer }, samples) => samples.map((text) => tokenizer.encode(text))", samples)
    assert found == [run.tokenizer.encode(sample) for sample in samples]


def test_predictions_of_a_text_are_the_program_s(run: Run, text: str, call: Call) -> None:
    ids = run.tokenizer.encode(text)[: run.config.model.block_size + 20]
    found = call(run, "({ backend }, ids) => backend.positions({ ids })", ids)
    expected = predict_text(run, ids)
    assert found["losses"] == [None, *(pytest.approx(value, abs=1e-4) for value in expected.losses.tolist())]
    assert found["ranks"][0] is None and found["mean_loss"] == pytest.approx(float(expected.losses.mean()), abs=1e-4)
    assert sum(a != b for a, b in zip(found["ranks"][1:], expected.ranks.tolist(), strict=True)) <= 1  # rounding


def test_next_tokens_are_the_program_s(run: Run, call: Call) -> None:
    ids, filters = run.tokenizer.encode("the sea"), {"temperature": 0.8, "top_k": 8, "top_p": 0.9}
    found = call(run, "({ backend }, request) => backend.nextTokens(request)", {"ids": ids, "top": 10, **filters})
    expected = next_token_distribution(run, ids, **filters)
    best = [candidate["id"] for candidate in found["candidates"]]
    assert [c["probability"] for c in found["candidates"]] == pytest.approx(
        expected.probabilities[best].tolist(), abs=1e-5
    )
    assert [c["filtered_probability"] for c in found["candidates"]] == pytest.approx(
        expected.filtered[best].tolist(), abs=1e-5
    )
    assert [found["entropy"], found["filtered_entropy"]] == pytest.approx(
        [expected.entropy, expected.filtered_entropy], abs=1e-4
    )


@pytest.mark.parametrize("run", [kind for kind in KINDS if kind != "bigram"], indirect=True)
def test_attention_the_lens_and_heads_that_are_off_are_the_program_s(run: Run, text: str, call: Call) -> None:
    ids = run.tokenizer.encode(text)[: run.config.model.block_size]
    weights = call(run, "({ backend }, ids) => backend.attention({ ids })", ids)["weights"]
    maps = attention_maps(run, ids)
    for block, head in ((0, 0), (1, 2 % run.config.model.n_head)):
        rows = [row[: t + 1] for t, row in enumerate(maps[block, head].tolist())]
        assert weights[block][head] == [pytest.approx(row, abs=1e-5) for row in rows]
    layers = call(run, "({ backend }, ids) => backend.lens({ ids, top: 2 })", ids)["layers"]
    expected = logit_lens(run, ids)
    assert [layer["name"] for layer in layers] == expected.layers
    for layer, logits in zip(layers, expected.logits, strict=True):
        best = F.softmax(logits.double(), dim=-1).amax(dim=-1).tolist()
        assert [position["top"][0]["probability"] for position in layer["positions"]] == pytest.approx(best, abs=1e-5)
    off = [[1, 0]]
    found = call(run, "({ backend }, request) => backend.positions(request)", {"ids": ids, "heads_off": off})
    if len(ids) > 1:
        without = predict_text(run, ids, heads_off=[(1, 0)])
        assert found["mean_loss"] == pytest.approx(float(without.losses.mean()), abs=1e-4)


@pytest.mark.parametrize("kind", ["gpt", "modern", "bigram", "gpt2, bpe"])
def test_eight_bits_are_those_of_a_quantized_run(text: str, tmp_path: Path, call: Call, kind: str) -> None:
    run = make_random_run(tmp_path / "run", CharTokenizer.from_text(text), **{"block_size": 24} | KINDS[kind])
    ids = run.tokenizer.encode(text)[:8]
    forward = "({ model }, ids) => Array.from(model.forward(ids, model.createCache()))"
    with torch.no_grad():
        expected = copy_for_page(run, "int8")(torch.tensor([ids]))[0]
    found = torch.tensor(call(run, forward, ids, quantize="int8")).view_as(expected)
    assert found.allclose(expected, rtol=0, atol=1e-4)
    assert not found.allclose(torch.tensor(call(run, forward, ids)).view_as(expected), rtol=0, atol=1e-4)


def test_a_chat_answers_as_the_program_s(text: str, tmp_path: Path, call: Call) -> None:
    tokenizer = CharTokenizer(CharTokenizer.from_text(text).stoi, CHAT_TOKENS)
    run = make_random_run(tmp_path / "run", tokenizer, block_size=48)
    chat = run.chat(max_new_tokens=30, temperature=0, seed=0)
    questions = ["sea", "the bell", "wind", "salt and wind"]
    answers = [chat.ask(question) for question in questions]
    messages = []
    for question, answer in zip(questions, answers, strict=True):
        messages.append({"role": "user", "content": question})
        ids = call(
            run,
            COLLECT.replace("generate", "chat"),
            {"model": "", "messages": messages, "max_tokens": 30, "temperature": 0},
        )
        assert run.tokenizer.decode(ids) == answer
        messages.append({"role": "assistant", "content": answer})


def test_an_unknown_character_is_named(text: str, tmp_path: Path, call: Call) -> None:
    run = make_random_run(tmp_path / "run", CharTokenizer.from_text(text), block_size=8)
    caught = "({ tokenizer }, text) => { try { tokenizer.encode(text); } catch (error) { return error.message; } }"
    assert "U+65E5 at position 4" in call(run, caught, "the 日")

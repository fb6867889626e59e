"""GGUF files compute what the run computes, by llama.cpp's formula and in llama.cpp itself where it is installed."""

import ctypes
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import fuzz_targets
import gguf
import numpy as np
import pytest
import torch
from answer_training import train_to_answer
from random_runs import BLOCK_SIZE, make_random_run
from texts import PROSE
from torch.nn import functional as F

from minigpt.errors import ExchangeError, MissingExtraError
from minigpt.exchange.bias_folding import CONSTANT_LOGIT
from minigpt.exchange.export import export_run
from minigpt.exchange.gguf_tokenizer import RESERVED_TOKEN, build_vocabulary
from minigpt.exchange.llama_check import open_llama
from minigpt.exchange.relu_as_gelu import RELU_SCALE, scale_relu_to_gelu, unscale_gelu_to_relu
from minigpt.runs.run import Run
from minigpt.tokenizers.base import END_OF_TEXT, Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import token_to_text
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

TEXT = (
    "To be, or not to be: that is the question.\nIs it ? I don't know . She 's here, isn't she ?\n"
    "The isle is full of noises, we 'll not . No !\n\n\tÆgypt, “café”, 漢字 and 🤖\n"
) * 4
TEXTS = (TEXT, "is it ? I don't , we 'll . No !", "\n\n  to  be\n", "“café” 漢🤖", " the", "\t")
GPT2 = {"tied_head": True, "activation": "gelu", "qkv_bias": True}
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "char": lambda: CharTokenizer.from_text(TEXT),
    "short": lambda: CharTokenizer.from_text(fuzz_targets.TEXT),
    "bpe": lambda: BPETokenizer.train(TEXT, 300),
    "documents": lambda: BPETokenizer.train(TEXT, 300, [END_OF_TEXT]),
    "gpt4": lambda: BPETokenizer.train(TEXT, 300, pattern="gpt4"),
    "unigram": lambda: SentencePieceTokenizer.train(TEXT + PROSE, 450),
    "sentencepiece-bpe": lambda: SentencePieceTokenizer.train(TEXT + PROSE, 450, "bpe", end_of_text=True),
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lecture": ("char", {}),
    "gpt2": ("char", GPT2),
    "gelu": ("bpe", {"activation": "gelu"}),
    "documents": ("documents", GPT2),
    **{name: (name, {}) for name in TOKENIZERS if name not in ("char", "short", "documents")},
}


SHORT: dict[str, tuple[str, dict[str, Any]]] = {  # their own text is long enough to be measured
    "short-lecture": ("short", {"block_size": 32}),
    "short-gpt2": ("short", GPT2 | {"block_size": 32}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A function that returns a run of a kind."""
    folder, made = tmp_path_factory.mktemp("gguf"), dict[str, Run]()

    def find(kind: str) -> Run:
        if kind not in made:
            tokenizer, settings = (KINDS | SHORT)[kind]
            made[kind] = make_random_run(folder / kind, TOKENIZERS[tokenizer](), **settings)
        return made[kind]

    return find


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The keys and the tensors of a file, read by the package gguf."""
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


def normalize(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * gain + bias


def compute_logits(path: Path, ids: list[int]) -> np.ndarray:
    """The logits (T, V) of llama.cpp's graph for GPT-2, in float64."""
    keys, tensors = read_file(path)
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    T, H = len(ids), keys["gpt2.attention.head_count"]
    x = w["token_embd.weight"][ids] + w["position_embd.weight"][:T]
    for layer in range(keys["gpt2.block_count"]):
        b = {name.removeprefix(f"blk.{layer}."): tensor for name, tensor in w.items()}
        y = normalize(x, b["attn_norm.weight"], b["attn_norm.bias"])
        qkv = y @ b["attn_qkv.weight"].T + b["attn_qkv.bias"]
        q, k, v = (part.reshape(T, H, -1).swapaxes(0, 1) for part in np.split(qkv, 3, -1))  # (H, T, D) each
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]) + np.triu(np.full((T, T), -np.inf), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        x = x + mixed.swapaxes(0, 1).reshape(T, -1) @ b["attn_output.weight"].T + b["attn_output.bias"]
        y = normalize(x, b["ffn_norm.weight"], b["ffn_norm.bias"]) @ b["ffn_up.weight"].T + b["ffn_up.bias"]
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * y * (1 + 0.044715 * y * y)))
        x = x + y @ b["ffn_down.weight"].T + b["ffn_down.bias"]
    head = w.get("output.weight", w["token_embd.weight"])
    return normalize(x, w["output_norm.weight"], w["output_norm.bias"]) @ head.T


@pytest.mark.parametrize("kind", ["lecture", "gpt2", "gelu", "documents", "unigram"])
def test_llama_cpps_formula_gives_the_logits_of_the_run(kind: str, runs: Callable[[str], Run], tmp_path: Path) -> None:
    run = runs(kind)
    export_run(run, "gguf", tmp_path / "out")
    ids = run.tokenizer.encode(TEXT)[:100]
    found = compute_logits(tmp_path / "out" / "model.gguf", ids)
    with torch.inference_mode():
        expected = run.model(torch.tensor([ids]))[0][0].double().numpy()
    np.testing.assert_allclose(found[:, : run.tokenizer.vocab_size], expected, atol=1e-4)
    np.testing.assert_allclose(found[:, run.tokenizer.vocab_size :], CONSTANT_LOGIT, atol=1e-3)


def test_the_begin_and_end_tokens_are_a_reserved_token_or_that_between_documents(
    runs: Callable[[str], Run], tmp_path: Path
) -> None:
    for kind in ("lecture", "documents"):
        run = runs(kind)
        export_run(run, "gguf", tmp_path / kind)
        keys, tensors = read_file(tmp_path / kind / "model.gguf")
        end = run.tokenizer.special_tokens.get(END_OF_TEXT, run.tokenizer.vocab_size)
        assert keys["tokenizer.ggml.bos_token_id"] == keys["tokenizer.ggml.eos_token_id"] == end
        assert keys["tokenizer.ggml.tokens"][end] == (RESERVED_TOKEN if kind == "lecture" else END_OF_TEXT)
        assert ("output.weight" in tensors) == (kind == "lecture")
        assert keys["gpt2.context_length"] == BLOCK_SIZE
        assert not keys["tokenizer.ggml.add_bos_token"]


# ReLU as GELU.


def test_a_scaled_gelu_is_a_relu_up_to_its_bound() -> None:
    x = torch.cat([torch.linspace(-1e-4, 1e-4, 20_001), torch.linspace(-50, 50, 20_001)]).double()
    one = torch.ones(1, dtype=torch.float64)
    up, _, down = scale_relu_to_gelu(one, one, one)
    for approximate in ("tanh", "none"):
        error = (F.gelu(x * up, approximate=approximate) * down - x.relu()).abs().max()
        assert 0.1 / RELU_SCALE < error <= 0.171 / RELU_SCALE


def test_scaling_a_feed_forward_layer_keeps_its_function_and_can_be_undone_bit_for_bit() -> None:
    torch.manual_seed(0)
    up, up_bias, down, x = torch.randn(64, 16), torch.randn(64), torch.randn(16, 64), torch.randn(50, 16)
    scaled = scale_relu_to_gelu(up, up_bias, down)
    found = F.linear(F.gelu(F.linear(x, scaled[0], scaled[1]), approximate="tanh"), scaled[2])
    expected = F.linear(F.linear(x.double(), up.double(), up_bias.double()).relu(), down.double())
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-6)
    for before, after in zip((up, up_bias, down), unscale_gelu_to_relu(*scaled, RELU_SCALE), strict=True):
        assert torch.equal(before, after)


def test_a_run_whose_last_gain_is_near_zero_is_refused_with_the_number(tmp_path: Path) -> None:
    run = make_random_run(tmp_path / "run", TOKENIZERS["char"]())
    with torch.no_grad():
        run.model.get_parameter("ln_f.weight")[3] = -2e-5
    with pytest.raises(ExchangeError, match=r"has a gain of 2e-05, .* train again with another --seed"):
        export_run(run, "gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The vocabulary.


def merge_bytes(character: str, merges: list[str]) -> list[str]:
    """The tokens that llama.cpp makes of a character: bytes, merged by the merge that comes first."""
    tokens = [token_to_text(bytes([byte])) for byte in character.encode()]
    while pairs := [pair for pair in map(" ".join, pairwise(tokens)) if pair in merges]:
        first = min(pairs, key=merges.index)
        place = [" ".join(pair) for pair in pairwise(tokens)].index(first)
        tokens[place : place + 2] = [tokens[place] + tokens[place + 1]]
    return tokens


def test_merges_build_every_character_and_never_join_two() -> None:
    characters = sorted({*TEXT, "\u00e8", "\u6f23", "\U0001f917", "\x7f", "\u0800"})
    vocabulary = build_vocabulary(CharTokenizer(characters))
    for first in characters:
        for second in ("", "é", "漢", "\n"):
            expected = [token_to_text(each.encode()) for each in first + second]
            assert merge_bytes(first + second, vocabulary.merges) == expected
    assert vocabulary.tokens == [token_to_text(character.encode()) for character in characters]


def test_characters_of_ascii_have_a_merge_too_because_llama_cpp_needs_the_key() -> None:
    assert build_vocabulary(CharTokenizer("ab\n")).merges == ["ÿ ÿ"]  # of bytes 0xFF, which no text has


def test_two_tokens_of_one_name_are_refused() -> None:
    with pytest.raises(ExchangeError, match="two tokens would be named 'Ã©' in a GGUF file"):
        build_vocabulary(CharTokenizer("aé", ["Ã©"]))


# Fewer bits.


def list_number_formats(path: Path) -> dict[str, str]:
    """The format of each tensor's numbers."""
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def test_eight_bits_are_smaller_and_their_loss_is_measured(runs: Callable[[str], Run], tmp_path: Path) -> None:
    whole = export_run(runs("short-gpt2"), "gguf", tmp_path / "whole")
    result = export_run(runs("short-gpt2"), "gguf", tmp_path / "few", quantize="q8_0")
    assert result.bytes < 0.6 * whole.bytes
    assert result.comparison is not None
    assert 0 < abs(result.comparison.export_loss - result.comparison.run_loss) < 0.05
    kinds = list_number_formats(tmp_path / "few" / "model.gguf")
    assert {kinds["token_embd.weight"], kinds["blk.0.ffn_up.weight"]} == {"Q8_0"}
    assert {kinds["position_embd.weight"], kinds["blk.0.ffn_up.bias"]} == {"F32"}


def test_the_scaled_weights_of_a_relu_stay_in_float32(runs: Callable[[str], Run], tmp_path: Path) -> None:
    export_run(runs("short-lecture"), "gguf", tmp_path / "few", quantize="q8_0")
    kinds = list_number_formats(tmp_path / "few" / "model.gguf")
    assert kinds["blk.0.attn_qkv.weight"] == kinds["output.weight"] == "Q8_0"
    assert kinds["blk.1.ffn_up.weight"] == kinds["blk.1.ffn_down.weight"] == "F32"


def test_a_width_that_has_no_blocks_of_32_is_refused(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"q8_0 needs rows of 32 numbers, and .* has n_embd 16: leave"):
        export_run(trained, "gguf", tmp_path / "out", quantize="q8_0")


# What is beside the file, and the command.


def test_the_card_and_the_modelfile_keep_a_text_within_the_context(trained: Run, tmp_path: Path) -> None:
    export_run(trained, "gguf", tmp_path / "out")
    assert "llama-cli -m model.gguf -c 16 -n 8 -no-cnv" in (tmp_path / "out" / "README.md").read_text()
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert modelfile.splitlines() == [
        "FROM ./model.gguf",
        "PARAMETER num_ctx 16",
        "PARAMETER num_predict 8",
        'TEMPLATE """{{ .Prompt }}"""',
    ]


def test_a_run_that_follows_instructions_brings_its_template_and_stops_after_an_answer(
    trained: Run, tmp_path: Path
) -> None:
    tuned = train_to_answer(trained, tmp_path, "ab", max_iters=4).run
    export_run(tuned, "gguf", tmp_path / "out")
    keys, _ = read_file(tmp_path / "out" / "model.gguf")
    end = tuned.tokenizer.special_tokens["<|end|>"]
    assert keys["tokenizer.ggml.eos_token_id"] == end
    assert len(keys["tokenizer.ggml.tokens"]) == tuned.tokenizer.vocab_size
    assert "add_generation_prompt" in keys["tokenizer.chat_template"]
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert 'PARAMETER stop "<|end|>"\nPARAMETER stop "<|user|>"' in modelfile
    assert "<|{{ .Role }}|>{{ .Content }}" in modelfile


def test_without_llama_cpp_an_export_is_not_checked_and_eight_bits_are_measured(
    runs: Callable[[str], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as if it were not installed
    result = export_run(runs("gpt2"), "gguf", tmp_path / "out")
    assert (result.comparison, result.install) == (None, "llama-cpp-python")
    few = export_run(runs("short-gpt2"), "gguf", tmp_path / "few", quantize="q8_0")
    assert few.comparison is not None
    assert few.comparison.program == "minigpt import gguf"
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mini-gpt\[gguf\]'"):
        export_run(runs("gpt2"), "gguf", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_command_prints_the_loss_of_eight_bits(
    runs: Callable[[str], Run], command: Callable, tmp_path: Path
) -> None:
    done = command("export", runs("short-gpt2").path, "--to", "gguf", "--quantize", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "in q8_0 the loss is " in done.stdout
    refused = command("export", runs("short-gpt2").path, "--to", "gguf", "--quantize", "q2_k", "--overwrite")
    assert refused.returncode == 2
    assert "the format gguf has no quantization 'q2_k': choose q8_0" in refused.stderr


# llama.cpp itself, where it is installed.


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_has_the_runs_tokens_logits_and_greedy_text(
    kind: str, runs: Callable[[str], Run], tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp")
    run = runs(kind)
    result = export_run(run, "gguf", tmp_path / "out")
    assert result.difference is not None
    assert result.difference < 1e-3 if run.config.model.activation == "relu" else result.difference < 5e-3
    llama = open_llama(tmp_path / "out" / "model.gguf", BLOCK_SIZE)
    assert llama is not None
    for text in TEXTS:
        ids = llama.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == run.tokenizer.encode(text)
        assert llama.detokenize(ids).decode() == text
    prompt = run.tokenizer.encode("The isle")
    llama.reset()
    written: list[int] = []
    for token in llama.generate(prompt, temp=0, repeat_penalty=1.0):
        written.append(token)
        if len(prompt) + len(written) == BLOCK_SIZE:
            break
    assert "The isle" + run.tokenizer.decode(written) == run.generate(
        "The isle", temperature=0, max_new_tokens=BLOCK_SIZE - len(prompt)
    )


def test_llama_cpps_gelu_of_16_bits_is_no_error(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    deep = {**GPT2, "n_layer": 8, "n_embd": 256, "n_head": 8, "block_size": 32}
    result = export_run(make_random_run(tmp_path / "run", TOKENIZERS["short"](), **deep), "gguf", tmp_path / "out")
    assert result.difference is not None
    assert 1e-2 < result.difference < 0.5


@pytest.mark.parametrize("kind", ["lecture", "bpe", "unigram", "sentencepiece-bpe"])
def test_llama_cpp_keeps_blanks_when_it_decodes_a_whole_text(
    kind: str, runs: Callable[[str], Run], tmp_path: Path
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    export_run(runs(kind), "gguf", tmp_path / "out")
    llama = open_llama(tmp_path / "out" / "model.gguf", BLOCK_SIZE)
    assert llama is not None
    text = "is it ? I don't , we 's . to"
    ids = llama.tokenize(text.encode(), add_bos=False, special=False)
    buffer = ctypes.create_string_buffer(200)
    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
    size = llama_cpp.llama_detokenize(
        vocabulary, (llama_cpp.llama_token * len(ids))(*ids), len(ids), buffer, len(buffer), False, False
    )
    assert buffer.raw[:size].decode() == text

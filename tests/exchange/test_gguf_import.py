"""GGUF files become runs: what was exported comes back, other programs' files open, damaged files are refused."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from random_runs import make_random_run
from texts import PROSE

from minigpt.errors import ExchangeError, FileError
from minigpt.exchange.export import export_run
from minigpt.exchange.gguf_import import import_gguf, load_gguf
from minigpt.exchange.lecture_import import load_lecture
from minigpt.exchange.nanogpt_import import load_nanogpt
from minigpt.tokenizers.added_tokens import AddedToken
from minigpt.tokenizers.base import END_OF_TEXT, Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import token_to_text
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

GPT2 = {"tied_head": True, "activation": "gelu", "qkv_bias": True}
SMALL = {"block_size": 24}
TEXT = "to be, or “not” to be é?\n" * 20
MERGES = BPETokenizer.train(TEXT, 270).merges
ROUND_TRIPS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    "lecture": (lambda: CharTokenizer.from_text(TEXT), {}),
    "chat": (lambda: CharTokenizer([*sorted({*TEXT}), "\ufffd"], CHAT_TOKENS, "\ufffd"), GPT2),
    "documents": (lambda: BPETokenizer(MERGES, [END_OF_TEXT]), GPT2),
    "gpt4": (lambda: BPETokenizer(MERGES, pattern="gpt4"), {"activation": "gelu"}),
    "added": (lambda: BPETokenizer(MERGES, added_tokens=[AddedToken("<b>", 256 + len(MERGES), False)]), {}),
    "bytes": (lambda: BPETokenizer([]), {}),
    "sentencepiece": (lambda: SentencePieceTokenizer.train(PROSE, 450), {}),
}


@pytest.mark.parametrize("kind", ROUND_TRIPS)
def test_an_exported_run_comes_back_with_its_tokenizer_logits_and_weights(kind: str, tmp_path: Path) -> None:
    make, settings = ROUND_TRIPS[kind]
    run = make_random_run(tmp_path / "run", make(), **SMALL | settings)
    export_run(run, "gguf", tmp_path / "out")
    model, tokenizer = load_gguf(tmp_path / "out")
    assert tokenizer.to_bytes() == run.tokenizer.to_bytes()
    ids = torch.arange(24)[None] % run.tokenizer.vocab_size
    with torch.inference_mode():
        torch.testing.assert_close(model(ids)[0], run.model(ids)[0], atol=2e-5, rtol=1e-5)
    assert model.config.activation == run.config.model.activation
    folded = set() if model.config.tied_head else {"lm_head.weight", "lm_head.bias", "ln_f.bias"}
    ours = run.model.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in folded and name in ours:
            assert torch.equal(tensor, ours[name]), name


def test_every_command_works_on_an_imported_file(command: Callable, tmp_path: Path) -> None:
    run = make_random_run(tmp_path / "run", CharTokenizer.from_text(TEXT), **SMALL)
    export_run(run, "gguf", tmp_path / "mine")
    done = command("import", "gguf", "mine/model.gguf", "--out", "again", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "imported"
    greedy = ("--max-new-tokens", "30", "--temperature", "0", "--prompt", "to be")
    assert command("sample", "again", *greedy).stdout == command("sample", "run", *greedy).stdout
    again = command("export", "again", "--to", "gguf", "--out", "twice")
    assert again.returncode == 0, again.stderr
    assert command("import", "gguf", "twice/model.gguf").returncode == 0
    assert (tmp_path / "runs" / "model").is_dir()


def write_gpt2(path: Path, **changes: Any) -> Path:
    """Write a GPT-2 as llama.cpp's converter does, with a head that repeats the embedding. `changes` are keys."""
    rng, C, T, V = np.random.default_rng(0), 32, 12, 256 + len(MERGES) + 1
    tokenizer = BPETokenizer(MERGES, [END_OF_TEXT])
    names = {i: name for name, i in tokenizer.special_tokens.items()}
    keys = {
        "general.architecture": "gpt2",
        "gpt2.context_length": T,
        "gpt2.embedding_length": C,
        "gpt2.block_count": 1,
        "gpt2.feed_forward_length": 4 * C,
        "gpt2.attention.head_count": 2,
        "gpt2.attention.layer_norm_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [names.get(i) or token_to_text(tokenizer.vocab[i]) for i in range(V)],
        "tokenizer.ggml.token_type": [1] * (V - 1) + [3],
        "tokenizer.ggml.merges": [f"{token_to_text(first)} {token_to_text(second)}" for first, second in MERGES],
    }
    shapes = {"token_embd.weight": (V, C), "position_embd.weight": (T, C), "output_norm.weight": (C,)}
    shapes |= {"output_norm.bias": (C,), "blk.0.attn_qkv.weight": (3 * C, C), "blk.0.attn_qkv.bias": (3 * C,)}
    shapes |= {"blk.0.attn_output.weight": (C, C), "blk.0.attn_output.bias": (C,), "blk.0.ffn_up.weight": (4 * C, C)}
    shapes |= {"blk.0.ffn_up.bias": (4 * C,), "blk.0.ffn_down.weight": (C, 4 * C), "blk.0.ffn_down.bias": (C,)}
    shapes |= {f"blk.0.{norm}.{part}": (C,) for norm in ("attn_norm", "ffn_norm") for part in ("weight", "bias")}
    tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["output.weight"] = tensors["token_embd.weight"]
    kind = changes.pop("number_format", "F32")
    for name, value in changes.items():
        (tensors if name in tensors else keys).update({name: value})
    writer = gguf.GGUFWriter(path, keys.pop("general.architecture"))
    for name, value in keys.items():
        if value is not None:
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
            add[type(value)](name, value)
    for name, values in tensors.items():
        if values is not None and kind == "Q8_0" and values.ndim == 2 and "position" not in name:
            numbers = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, numbers), raw_dtype=numbers)
        elif values is not None:
            writer.add_tensor(name, values.astype(np.float16) if kind == "F16" and values.ndim == 2 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("number_format", ["F32", "F16", "Q8_0"])
def test_a_file_of_llama_cpps_converter_is_read_in_each_number_format(number_format: str, tmp_path: Path) -> None:
    path = write_gpt2(tmp_path / "gpt2.gguf", number_format=number_format)
    model, tokenizer = load_gguf(path)
    assert model.config.tied_head  # the head repeats the embedding
    assert tokenizer.encode("to be") == BPETokenizer(MERGES, [END_OF_TEXT]).encode("to be")
    ours = model.state_dict()
    for tensor in gguf.GGUFReader(path).tensors:
        expected = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32))
        if tensor.name == "blk.0.ffn_up.weight":
            assert torch.equal(ours["blocks.0.ffwd.up.weight"], expected)
        if tensor.name == "token_embd.weight":
            assert torch.equal(ours["token_embedding_table.weight"], expected)


def test_an_imported_file_gives_the_logits_of_llama_cpp(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from minigpt.exchange.llama_check import compute_llama_logits, open_llama

    path = write_gpt2(tmp_path / "gpt2.gguf")
    llama, ids = open_llama(path, 12), torch.arange(12)[None]
    assert llama is not None
    with torch.inference_mode():
        found = load_gguf(path)[0](ids)[0]
    torch.testing.assert_close(found, compute_llama_logits(llama, ids), atol=2e-2, rtol=1e-3)  # its GELU has 16 bits


NAN = np.full((32,), np.nan, np.float32)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"general.architecture": "llama"}, "of the architecture 'llama': only 'gpt2' can be read"),
    "no context": ({"gpt2.context_length": None}, "it has no gpt2.context_length"),
    "a context that is a text": ({"gpt2.context_length": "12"}, "gpt2.context_length is of the wrong type"),
    "a huge model": (
        {"gpt2.embedding_length": 2**31, "gpt2.feed_forward_length": None},
        "is of shape|as large as it",
    ),
    "too many blocks": ({"gpt2.block_count": 2**31}, "n_layer must be"),
    "a block more": ({"gpt2.block_count": 2}, r"blk\.1\.attn_norm\.weight is missing"),
    "another context": ({"gpt2.context_length": 13}, r"position_embd.weight is of shape \[12, 32\], not \[13, 32\]"),
    "an epsilon of zero": ({"gpt2.attention.layer_norm_epsilon": 0.0}, "layer_norm_epsilon 0.0, and only 1e-13 to 1"),
    "a wide layer": ({"gpt2.feed_forward_length": 129}, "feed_forward_length 129, and only 1 to 128, 4 times"),
    "a narrow layer": ({"gpt2.feed_forward_length": 100}, r"ffn_up.weight is of shape \[128, 32\], not \[100, 32\]"),
    "NaN": ({"blk.0.ffn_down.bias": NAN}, r"blk\.0\.ffn_down\.bias holds a value that is not a finite number"),
    "another tokenizer": ({"tokenizer.ggml.model": "llama"}, "of the kind 'llama', and only 'gpt2'"),
    "another pattern": ({"tokenizer.ggml.pre": "qwen2"}, "cuts a text by 'qwen2'"),
    "too few types": ({"tokenizer.ggml.token_type": [1, 1]}, "another number of their types"),
    "a type of no meaning": ({"tokenizer.ggml.token_type": [77] * (257 + len(MERGES))}, "a token of an unknown type"),
    "no merges": ({"tokenizer.ggml.merges": ["a"]}, "the tokenizer in .* cannot be read"),
    "a scale that is no power of two": ({"mini_gpt.relu_scale": 3.0}, "mini_gpt.relu_scale is no power of two"),
    "an alignment of zero": ({"general.alignment": 0}, "its alignment is 0"),
    "no embedding": ({"token_embd.weight": None}, r"token_embd\.weight is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    path = write_gpt2(tmp_path / "gpt2.gguf", **changes)
    with pytest.raises(ExchangeError, match=message) as caught:
        import_gguf(path, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def change_bytes(place: int, content: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:place] + content + whole[place + len(content) :]


DAMAGED = {
    "another format": (lambda whole: b"PK" + whole, "is not a GGUF file"),
    "an empty file": (lambda whole: b"", "is not a GGUF file"),
    "a newer version": (change_bytes(4, b"\x09"), "is GGUF of version 9"),
    "more tensors than bytes": (change_bytes(8, struct.pack("<Q", 2**60)), "it says that it has .* tensors"),
    "more keys than bytes": (change_bytes(16, struct.pack("<Q", 2**40)), "it says that it has .* keys"),
    "a key longer than the file": (change_bytes(24, struct.pack("<Q", 2**50)), "header does not end within the file"),
    "half a header": (lambda whole: whole[:500], "header does not end within the file"),
    "half its numbers": (lambda whole: whole[: -len(whole) // 4], "does not end within the file; copy"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    change, message = DAMAGED[case]
    path = write_gpt2(tmp_path / "gpt2.gguf")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ExchangeError, match=message) as caught:
        load_gguf(path)
    assert "\n" not in str(caught.value)


def test_a_number_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = write_gpt2(tmp_path / "gpt2.gguf", number_format="F16")
    content = path.read_bytes()
    place = content.index(b"position_embd.weight") + len(b"position_embd.weight") + 4 + 16
    path.write_bytes(content[:place] + struct.pack("<I", 12) + content[place + 4 :])
    with pytest.raises(ExchangeError, match=r"position_embd\.weight has the number format 12, and only F32"):
        load_gguf(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for name in ("nothing.gguf", "."):
        with pytest.raises((ExchangeError, FileError)):
            load_gguf(tmp_path / name)


@pytest.mark.parametrize("load", [load_gguf, load_nanogpt, load_lecture])
def test_a_missing_file_is_named(load: Callable, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere': there is no such file or folder: check the name"):
        load(tmp_path / "nowhere")

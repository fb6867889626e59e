"""Exports to ONNX have the run's logits and greedy text in ONNX Runtime, with a cache and without.

Tracing a model takes seconds, so a few small models are exported once for all tests.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fuzz_targets import TEXT, bpe_tokenizer, char_tokenizer, sentencepiece
from random_runs import make_random_run
from snippets import ROOT, find_blocks, read_table

from minigpt.config import SamplingConfig
from minigpt.errors import ExchangeError, MissingExtraError
from minigpt.exchange.export import export_run
from minigpt.exchange.export_model import copy_model
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.huggingface_config import write_tokenizer_files
from minigpt.exchange.onnx_export import check_onnx, write_onnx
from minigpt.exchange.onnx_reader import OnnxReader
from minigpt.generation.engine import generate
from minigpt.runs.quantize_run import quantize
from minigpt.runs.run import Run

SHAPE: dict[str, Any] = {"n_embd": 16, "n_head": 2, "n_layer": 1, "block_size": 32}
GPT2 = {"tied_head": True, "activation": "gelu", "qkv_bias": True}
KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "gpt": (char_tokenizer, {}),
    "gpt2-bpe": (bpe_tokenizer, GPT2),
    "modern": (char_tokenizer, {"architecture": "modern"}),
    "bigram": (char_tokenizer, {"architecture": "bigram"}),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Run, Path]]:
    """A function that returns a run with random weights and its export, made once."""
    folder, made = tmp_path_factory.mktemp("onnx"), {}

    def find(kind: str) -> tuple[Run, Path]:
        if kind not in made:
            tokenizer, settings = KINDS[kind]
            run = make_random_run(folder / kind, tokenizer(), **SHAPE | settings)
            result = export_run(run, "onnx", folder / f"{kind}-onnx")
            assert result.difference is not None
            assert result.difference < 1e-4
            made[kind] = run, result.path
        return made[kind]

    return find


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_and_a_cache_of_any_length_give_the_runs_logits(
    kind: str, exports: Callable[[str], tuple[Run, Path]]
) -> None:
    run, folder = exports(kind)
    for rows, lengths in ((1, [32]), (3, [1, 1, 5, 1, 9, 15]), (2, [31, 1])):
        ids = torch.randint(run.tokenizer.vocab_size, (rows, 32), generator=torch.Generator().manual_seed(rows))
        reader = OnnxReader(folder / "onnx" / "model.onnx")
        found = torch.cat([reader.read(part) for part in ids.split(lengths, dim=1)], dim=1)
        torch.testing.assert_close(found, run.model(ids)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_greedy_text_is_the_runs_up_to_block_size(kind: str, exports: Callable[[str], tuple[Run, Path]]) -> None:
    run, folder = exports(kind)
    reader, ids = OnnxReader(folder / "onnx" / "model.onnx"), torch.tensor([run.tokenizer.encode("To be")])
    expected = generate(run.model, ids, SamplingConfig(max_new_tokens=32 - ids.shape[1], temperature=0))
    new = ids
    while ids.shape[1] < 32:
        new = reader.read(new)[:, -1:].argmax(dim=-1)
        ids = torch.cat([ids, new], dim=1)
    assert ids[0].tolist()[-len(expected[0]) :] == expected[0].tolist()


def test_the_gpt_has_the_arguments_and_files_of_transformers_js(exports: Callable[[str], tuple[Run, Path]]) -> None:
    run, folder = exports("gpt")
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    cache = ["batch", 2, "past", 8]
    assert [(given.name, given.shape, given.type) for given in session.get_inputs()] == [
        ("input_ids", ["batch", "length"], "tensor(int64)"),
        ("attention_mask", ["batch", "total"], "tensor(int64)"),
        ("position_ids", ["batch", "length"], "tensor(int64)"),
        ("past_key_values.0.key", cache, "tensor(float)"),
        ("past_key_values.0.value", cache, "tensor(float)"),
    ]
    assert [result.name for result in session.get_outputs()] == ["logits", "present.0.key", "present.0.value"]
    assert session.get_outputs()[0].shape == ["batch", "length", run.tokenizer.vocab_size]
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["n_layer"], config["n_head"], config["n_embd"]) == ("gpt2", 1, 2, 16)
    assert {path.name for path in folder.iterdir()} == {
        *("onnx", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "README.md")
    }


def test_the_lines_of_the_docs_and_of_the_model_card_open_the_model(
    exports: Callable[[str], tuple[Run, Path]], capsys: pytest.CaptureFixture
) -> None:
    _, folder = exports("gpt")
    for page, place in ((ROOT / "docs" / "export.md", "exports/lecture-onnx/"), (folder / "README.md", "")):
        [block] = [block for block in find_blocks("python", page.read_text()) if "onnxruntime" in block]
        exec(block.replace(f"{place}onnx/model.onnx", str(folder / "onnx" / "model.onnx")))
        assert "('input_ids', ['batch', 'length'])" in capsys.readouterr().out


def test_the_modern_model_passes_on_its_token_shifts_and_the_bigram_has_no_cache(
    exports: Callable[[str], tuple[Run, Path]],
) -> None:
    names = {}
    for kind in ("modern", "bigram"):
        session = onnxruntime.InferenceSession(exports(kind)[1] / "onnx" / "model.onnx")
        names[kind] = [[each.name for each in end] for end in (session.get_inputs(), session.get_outputs())]
    past = ["past_key_values.0.key", "past_key_values.0.value", "past_shift.0", "past_shift.1"]
    present = ["present.0.key", "present.0.value", "present_shift.0", "present_shift.1"]
    assert names["modern"] == [["input_ids", *past], ["logits", *present]]
    assert names["bigram"] == [["input_ids"], ["logits"]]


def test_a_short_text_beside_a_long_one_is_filled_up_on_its_left(exports: Callable[[str], tuple[Run, Path]]) -> None:
    run, folder = exports("gpt")
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    long, short = (torch.tensor([run.tokenizer.encode(text)]) for text in ("To be, or not", "question"))
    filled = torch.cat([torch.zeros(1, long.shape[1] - short.shape[1], dtype=torch.int64), short], dim=1)
    mask = torch.ones(2, long.shape[1], dtype=torch.int64)
    mask[1, : -short.shape[1]] = 0
    empty = np.zeros((2, 2, 0, 8), np.float32)
    given = {
        "input_ids": torch.cat([long, filled]).numpy(),
        "attention_mask": mask.numpy(),
        "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0).numpy(),
        "past_key_values.0.key": empty,
        "past_key_values.0.value": empty,
    }
    logits = torch.from_numpy(session.run(["logits"], given)[0])
    torch.testing.assert_close(logits[:1], run.model(long)[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[1:, -short.shape[1] :], run.model(short)[0], atol=1e-4, rtol=0)
    assert logits.isfinite().all()


@pytest.mark.parametrize("kind", ["gpt", "modern", "bigram"])
def test_an_unknown_character_can_be_read_and_is_never_written(
    kind: str, exports: Callable[[str], tuple[Run, Path]]
) -> None:
    run, folder = exports(kind)
    unknown = run.tokenizer.vocab_size
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    assert {token["content"]: token["id"] for token in tokens} == {"<unk>": unknown}
    logits = OnnxReader(folder / "onnx" / "model.onnx").read(torch.tensor([[3, unknown, 4]]))
    assert logits.shape == (1, 3, unknown)
    assert logits.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_valid_and_names_no_folder_of_this_machine(
    kind: str, exports: Callable[[str], tuple[Run, Path]]
) -> None:
    path = exports(kind)[1] / "onnx" / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    content = path.read_bytes()
    assert b"minigpt" not in content
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


def test_int8_is_a_smaller_file_whose_loss_is_measured(
    exports: Callable[[str], tuple[Run, Path]], tmp_path: Path
) -> None:
    run, folder = exports("bigram")
    result = export_run(run, "onnx", tmp_path / "out", quantize="int8")
    assert [path.name for path in (tmp_path / "out" / "onnx").iterdir()] == ["model_quantized.onnx"]
    size = (folder / "onnx" / "model.onnx").stat().st_size
    assert (tmp_path / "out" / "onnx" / "model_quantized.onnx").stat().st_size < 0.6 * size
    compared = result.comparison
    assert compared is not None
    assert 0 < compared.difference < 0.1
    assert compared.run_loss != compared.export_loss
    assert compared.export_loss == pytest.approx(compared.run_loss, abs=0.05)
    ids = torch.tensor([run.tokenizer.encode(TEXT[:30])])
    found = OnnxReader(tmp_path / "out" / "onnx" / "model_quantized.onnx").read(ids)
    torch.testing.assert_close(found, run.model(ids)[0], atol=0.1, rtol=0)


def test_a_model_that_computes_something_else_is_no_export(
    exports: Callable[[str], tuple[Run, Path]], tmp_path: Path
) -> None:
    run, folder = exports("bigram")
    model = onnx.load(folder / "onnx" / "model.onnx")
    table = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    table.raw_data = (np.frombuffer(table.raw_data, np.float32) + np.float32(0.5)).tobytes()
    (tmp_path / "onnx").mkdir()
    onnx.save(model, tmp_path / "onnx" / "model.onnx")
    with pytest.raises(ExchangeError, match=r"onnxruntime computes other logits than the run: they differ by 0\.5"):
        check_onnx(run, tmp_path, ExportOptions())


def test_a_program_that_is_missing_is_named(
    exports: Callable[[str], tuple[Run, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = exports("bigram")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert check_onnx(run, folder, ExportOptions()) is None
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript is not installed: .* 'mini-gpt\[onnx\]'"):
        write_onnx(run, tmp_path / "out", ExportOptions())


ROWS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {  # of the table in docs/export.md
    "GPT, characters": (char_tokenizer, {}),
    "GPT with `--tied-head --activation gelu_exact`, characters": (
        char_tokenizer,
        {"tied_head": True, "activation": "gelu_exact"},
    ),
    "GPT with `--activation gelu`, `--qkv-bias` or `--tied-head`, characters": (char_tokenizer, GPT2),
    "GPT, BPE": (bpe_tokenizer, {}),
    "GPT, SentencePiece": (sentencepiece, {}),
    "bigram": (char_tokenizer, {"architecture": "bigram"}),
    "modern": (char_tokenizer, {"architecture": "modern"}),
}


def test_the_table_of_the_docs_says_what_onnx_can_hold(tmp_path: Path) -> None:
    cells = {row["run"]: row["`onnx`"] for row in read_table(ROOT / "docs" / "export.md", "run")}
    assert cells.pop("quantized") == "with `--dequantize`"
    assert cells.keys() == ROWS.keys()
    for number, (row, cell) in enumerate(cells.items()):
        tokenizer, settings = ROWS[row]
        run = make_random_run(tmp_path / str(number), tokenizer(), **SHAPE | settings)
        (tmp_path / f"{number}-onnx").mkdir()
        copy_model(run), write_tokenizer_files(run, tmp_path / f"{number}-onnx")  # raise for what cannot be exported
        assert cell == "✓", row
        if row in ("GPT, characters", "modern"):
            few = quantize(run, 8, tmp_path / f"{number}-int8").run
            with pytest.raises(ExchangeError, match="or add --dequantize"):
                export_run(few, "onnx", tmp_path / "out")
            model, ids = copy_model(few, dequantize=True), torch.tensor([[1, 2, 3]])
            torch.testing.assert_close(model(ids)[0], few.model(ids)[0], atol=1e-4, rtol=1e-4)

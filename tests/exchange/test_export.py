"""Exported runs open in the other program, with the run's tokens, logits and greedy texts; or are refused by name."""

import errno
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from answer_training import train_to_answer
from cli_process import hide_module
from conftest import TINY
from lazy_module import LazyModule
from snippets import ROOT, read_table
from torch import Tensor
from torch.nn import functional as F

import minigpt
from minigpt.cli.main import run as run_here
from minigpt.errors import ConfigError, ExchangeError, FileError
from minigpt.exchange.bias_folding import CONSTANT_LOGIT, append_constant_token, fold_head_bias
from minigpt.exchange.export import FORMATS, export_run
from minigpt.exchange.export_target import replace_target
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
from minigpt.runs.quantize_run import quantize
from minigpt.runs.run import Run
from minigpt.tokenizers.chat_format import ChatTemplate, Turn

peft, transformers = LazyModule("peft"), LazyModule("transformers")

BLOCK_SIZE = 64
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "lecture": {"implementation": "lecture"},
    "gpt2": {"tied_head": True, "activation": "gelu", "qkv_bias": True},
    "bpe": {"tokenizer": "bpe", "vocab_size": 300},
    "tied-bpe": {"tokenizer": "bpe", "vocab_size": 300, "tied_head": True},
}
OTHERS: dict[str, dict[str, Any]] = {
    "nanogpt": {"tied_head": True, "activation": "gelu_exact"},
    "bigram": {"architecture": "bigram"},
    "modern": {"architecture": "modern"},
    "sentencepiece": {"tokenizer": "sentencepiece", "vocab_size": 320},
}
ROWS = {  # of the table in docs/export.md
    "GPT, characters": "default",
    "GPT with `--tied-head --activation gelu_exact`, characters": "nanogpt",
    "GPT with `--activation gelu`, `--qkv-bias` or `--tied-head`, characters": "gpt2",
    "GPT, BPE": "bpe",
    "GPT, SentencePiece": "sentencepiece",
    "bigram": "bigram",
    "modern": "modern",
    "quantized": None,
}


@pytest.fixture(scope="module")
def runs(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A function that returns a run of a kind, trained once."""
    folder = tmp_path_factory.mktemp("export")

    def find(kind: str) -> Run:
        if not (folder / kind).exists():
            settings = TINY | {"block_size": BLOCK_SIZE, "max_iters": 8, "eval_interval": 8, "learning_rate": 2e-2}
            minigpt.train(data=text_file, out=folder / kind, device="cpu", **settings | (KINDS | OTHERS)[kind])
        return minigpt.load(folder / kind)

    return find


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_the_folder_with_the_runs_tokens_logits_and_greedy_text(
    kind: str, runs: Callable[[str], Run], text: str, tmp_path: Path
) -> None:
    run = runs(kind)
    result = export_run(run, "hf", tmp_path / "out")
    assert result.difference is not None
    assert result.difference < 1e-5
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = run.tokenizer.encode(text[:500])
    assert tokenizer(text[:500])["input_ids"] == ids
    assert tokenizer.decode(ids) == text[:500]
    write = transformers.pipeline("text-generation", model=str(tmp_path / "out"))
    for prompt in ("KEEPER:", "the sea,\n"):
        tokens = BLOCK_SIZE - len(run.tokenizer.encode(prompt))
        written = write(prompt, do_sample=False, max_length=None, max_new_tokens=tokens)[0]["generated_text"]
        assert written == run.generate(prompt, temperature=0, max_new_tokens=tokens)


def test_transformer_lens_opens_the_folder_with_the_runs_logits(runs: Callable[[str], Run], tmp_path: Path) -> None:
    bridge = pytest.importorskip("transformer_lens.model_bridge").TransformerBridge
    run = runs("default")
    export_run(run, "hf", tmp_path / "out")
    ids = torch.arange(BLOCK_SIZE)[None] % run.tokenizer.vocab_size
    with torch.inference_mode():
        theirs = bridge.boot_transformers(str(tmp_path / "out"), device="cpu")(ids)[..., : run.tokenizer.vocab_size]
        assert (theirs - run.model(ids)[0]).abs().max() < 1e-4


def test_without_a_prompt_transformers_begins_as_the_run_does_and_stops_at_block_size(
    runs: Callable[[str], Run], tmp_path: Path
) -> None:
    run = runs("default")
    export_run(run, "hf", tmp_path / "out")
    ids = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").generate(do_sample=False)[0].tolist()
    assert len(ids) == BLOCK_SIZE
    assert run.tokenizer.decode(ids[1:]) == run.generate(temperature=0, max_new_tokens=BLOCK_SIZE - 1)


def test_an_unknown_character_is_read_as_the_token_that_is_never_written(
    runs: Callable[[str], Run], tmp_path: Path
) -> None:
    run = runs("default")
    export_run(run, "hf", tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    unknown = run.tokenizer.vocab_size
    assert tokenizer("se漢a é")["input_ids"] == [
        *run.tokenizer.encode("se"),
        unknown,
        *run.tokenizer.encode("a "),
        unknown,
    ]
    assert tokenizer.unk_token_id == unknown
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        logits = model(torch.tensor([[unknown, *run.tokenizer.encode("the sea")]])).logits
    torch.testing.assert_close(logits[..., unknown], torch.full((1, 8), CONSTANT_LOGIT), atol=1e-3, rtol=0)


def test_the_chat_template_writes_a_conversation_as_the_run_does(
    runs: Callable[[str], Run], trained: Run, tmp_path: Path
) -> None:
    tuned = train_to_answer(trained, tmp_path, "ab", max_iters=4).run
    export_run(tuned, "hf", tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = [Turn("user", "q1"), Turn("assistant", "b"), Turn("user", "q 2")]
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert found == ChatTemplate(tuned.tokenizer).encode_prompt(turns)
    assert tokenizer.eos_token_id == tuned.tokenizer.special_tokens["<|end|>"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert '{"role": "user"' in card


def test_peft_opens_the_adapter_of_a_run_over_the_export_of_its_base(
    trained: Run, text_file: Path, tmp_path: Path
) -> None:
    lora = LoRAConfig(rank=2, alpha=40.0)
    settings = {"max_iters": 4, "eval_interval": 4, "learning_rate": 1e-2}
    tuned = minigpt.finetune(trained, data=text_file, method="lora", lora=lora, out=tmp_path / "tuned", **settings)
    export_run(trained, "hf", tmp_path / "base")
    export_run(tuned, "hf", tmp_path / "out")
    export_run(tuned, "hf", tmp_path / "out", overwrite=True)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    ids = torch.tensor([trained.tokenizer.encode("the sea")])
    with torch.inference_mode():
        before = base(ids).logits[..., : trained.tokenizer.vocab_size]
        found = peft.PeftModel.from_pretrained(base, tmp_path / "out" / "adapter")(ids).logits
        expected = tuned.model(ids)[0]
    assert (before - expected).abs().max() > 0.01
    torch.testing.assert_close(found[..., : trained.tokenizer.vocab_size], expected, atol=1e-4, rtol=1e-4)
    assert "PeftModel.from_pretrained(base" in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_that_changes_the_last_layer_is_left_out(trained: Run, text_file: Path, tmp_path: Path) -> None:
    tuned = train_to_answer(trained, tmp_path, "ab", max_iters=4, method="lora").run
    assert (tuned.path / "adapter").is_dir()
    export_run(tuned, "hf", tmp_path / "out")
    assert not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_run_is_exported_in_full_precision_on_request_only(
    bits: int, runs: Callable[[str], Run], tmp_path: Path
) -> None:
    few = quantize(runs("default"), bits, tmp_path / "few").run
    with pytest.raises(ExchangeError, match=r"is quantized to .* or add --dequantize"):
        export_run(few, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = export_run(few, "hf", tmp_path / "out", dequantize=True)
    assert result.difference is not None
    assert result.difference < 1e-5


@pytest.mark.parametrize("kind", ["default", "lecture", "bigram"])
def test_the_lectures_code_loads_the_state_dict_strictly(kind: str, runs: Callable[[str], Run], tmp_path: Path) -> None:
    run = runs(kind)
    result = export_run(run, "lecture", tmp_path / "out")
    assert result.difference is not None
    assert result.difference < 1e-5
    model = (BigramLanguageModel if kind == "bigram" else GPTLanguageModel)(run.config.model)
    model.load_state_dict(torch.load(tmp_path / "out" / "model.pt", weights_only=True), strict=True)
    characters = json.loads((tmp_path / "out" / "vocabulary.json").read_text())
    assert characters == list(run.tokenizer.stoi)


@pytest.mark.parametrize(
    ("kind", "to", "message"),
    [
        ("gpt2", "lecture", "the lecture's code has no GELU, no tied head and no bias on queries"),
        ("bpe", "lecture", "the lecture's code knows characters only, and '.*bpe' has a bpe tokenizer"),
        ("default", "word", "there is no format 'word': choose hf, "),
    ],
)
def test_what_a_format_cannot_hold_is_refused_by_name(
    kind: str, to: str, message: str, runs: Callable[[str], Run], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError if to == "word" else ExchangeError, match=message):
        export_run(runs(kind), to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("architecture", ["modern", "bigram"])
def test_another_architecture_is_refused_by_name(architecture: str, runs: Callable[[str], Run], tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=f"this format holds a GPT, and '.*' is a {architecture} model: "):
        export_run(runs(architecture), "hf", tmp_path / "out")


def test_the_table_of_the_docs_says_what_can_be_exported(runs: Callable[[str], Run], tmp_path: Path) -> None:
    rows = read_table(ROOT / "docs" / "export.md", "run")
    assert {row["run"] for row in rows} == ROWS.keys()
    for row, to in ((row, to) for row in rows for to in FORMATS if to != "onnx"):  # test_onnx_export.py has it
        kind, cell = ROWS[row["run"]], row[f"`{to}`"]
        run = runs(kind) if kind else quantize(runs("default"), 8, tmp_path / "few").run
        try:
            export_run(run, to, tmp_path / f"{row['run'][:20]}-{to}", dequantize="--dequantize" in cell)
            done = True
        except ExchangeError:
            done = False
        assert done == (cell == "✓" or "--dequantize" in cell), (row["run"], to)


def test_a_quantization_that_the_format_lacks_is_refused(runs: Callable[[str], Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the format hf has no quantization 'q8_0': leave --quantize out"):
        export_run(runs("default"), "hf", tmp_path / "out", quantize="q8_0")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_largest_difference(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    export = ["export", str(trained.path), "--to", "hf"]
    assert run_here(export) == 0
    done = capfd.readouterr()
    assert "checked with transformers: the logits differ by at most" in done.out
    assert "Loading" not in done.err
    assert run_here(export) == 2
    again = capfd.readouterr()
    assert again.out == ""
    assert "exists: choose another --out, or add --overwrite" in again.err
    assert run_here([*export, "--overwrite", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["path"] == "exports/trained-hf"
    assert shown["checked_by"] == "transformers"
    assert shown["largest_difference"] < 1e-5
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["trained-hf"]


def test_without_the_other_program_the_export_says_that_it_was_not_checked(trained: Run, command: Callable) -> None:
    done = command("export", trained.path, "--to", "hf", prepare=functools.partial(hide_module, "transformers"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "not checked, because transformers is not installed: pip install transformers"


# Folding.


def compute_logits(x: Tensor, gain: Tensor, norm_bias: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    """The last layer norm and the last layer."""
    return F.linear(F.layer_norm(x, x.shape[-1:], gain, norm_bias), head, bias)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("C", [2, 16, 384])
def test_a_bias_moved_elsewhere_gives_the_logits_of_float64(C: int, sign: float) -> None:
    torch.manual_seed(C)
    gain = (0.1 + torch.rand(C).double()) * torch.randn(C).sign()
    norm_bias = sign * gain * torch.rand(C).double()
    head, bias, x = torch.randn(9, C).double(), 5 * torch.randn(9).double(), 3 * torch.randn(50, C).double()
    expected = compute_logits(x, gain, norm_bias, head, bias)
    new_head, new_bias = fold_head_bias(head, bias, gain, norm_bias)
    torch.testing.assert_close(compute_logits(x, gain, new_bias, new_head, None), expected, atol=1e-10, rtol=1e-10)
    folded = fold_head_bias(*(tensor.float() for tensor in (head, bias, gain, norm_bias)))
    found = compute_logits(x.float(), gain.float(), folded[1], folded[0], None)
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-4)


def test_a_gain_near_zero_is_refused_with_its_number() -> None:
    gain = torch.ones(8)
    gain[3] = 2e-5
    with pytest.raises(ExchangeError, match="a gain of 2e-05, so the bias cannot be moved"):
        fold_head_bias(torch.randn(5, 8), torch.randn(5), gain, torch.zeros(8))


def test_a_constant_token_has_the_same_logit_everywhere() -> None:
    torch.manual_seed(0)
    head, bias, embedding = append_constant_token(torch.randn(5, 8), torch.randn(5), torch.randn(5, 8))
    assert len(embedding) == 6
    gain, norm_bias = torch.rand(8) + 0.5, torch.randn(8)
    new_head, new_bias = fold_head_bias(head, bias, gain, norm_bias)
    logits = compute_logits(torch.randn(20, 8), gain, new_bias, new_head, None)
    torch.testing.assert_close(logits[:, 5], torch.full((20,), CONSTANT_LOGIT), atol=1e-4, rtol=0)


# The target.


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), replace_target(out, ["a"]) as aside:
        aside.mkdir()
        (aside / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):
        with replace_target(out, ["a"], overwrite=True) as aside:
            aside.mkdir()
            (aside / "a").write_text(content)
        assert (out / "a").read_text() == content
    with pytest.raises(FileError, match="cannot write"), replace_target(out, ["a"], overwrite=True) as aside:
        aside.mkdir()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (out / "a").read_text() == "second"
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_no_export_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    for name, names, message in (
        ("out", ["a"], "holds 'letter.txt', which is no part of an export"),
        ("link", ["a"], "is not a folder"),
        ("dead", ["a"], "is not a folder"),
        ("file", ["a"], "is not a folder"),
        ("out", [], "is not a file"),
    ):
        with pytest.raises(FileError, match=message), replace_target(tmp_path / name, names, overwrite=True):
            pass
        with pytest.raises(FileError, match="exists: choose another --out"), replace_target(tmp_path / name, names):
            pass
    assert (out / "letter.txt").read_text() == "dear"


def test_a_folder_that_cannot_be_written_is_an_error_of_one_sentence(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match=r"cannot write '.*file/out': "):
        export_run(trained, "lecture", tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""A GPT-2 imported as a run: it gives transformers' logits, and every command works on it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lazy_module import LazyModule
from random_runs import make_random_run
from texts import PROSE
from tokenizers import ByteLevelBPETokenizer

import minigpt
from minigpt.exchange.export import export_run
from minigpt.exchange.huggingface_import import import_gpt2
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

transformers = LazyModule("transformers")

END = "<|endoftext|>"
GPT2 = {"tied_head": True, "activation": "gelu", "qkv_bias": True}


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 with random weights and its own tokenizer, saved by transformers and tokenizers."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-gpt2"
    tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator([PROSE], vocab_size=400, special_tokens=[END], show_progress=False)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=400, n_positions=48, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_an_imported_gpt2_gives_the_logits_and_greedy_text_of_transformers(gpt2_folder: Path, tmp_path: Path) -> None:
    run = import_gpt2(gpt2_folder, tmp_path / "run")
    other = transformers.GPT2LMHeadModel.from_pretrained(gpt2_folder).eval()
    ids = torch.randint(400, (5, 48))
    with torch.no_grad():
        assert (run.model(ids)[0] - other(ids).logits).abs().max() < 1e-4
    again = minigpt.load(tmp_path / "run")
    assert again.generate("The", max_new_tokens=20, seed=1) == run.generate("The", max_new_tokens=20, seed=1)
    greedy = run.generate("The text", max_new_tokens=12, temperature=0)
    start = torch.tensor([run.tokenizer.encode("The text")])
    expected = other.generate(start, max_new_tokens=12, do_sample=False, pad_token_id=0)[0]
    assert greedy == run.tokenizer.decode(expected.tolist())


def test_every_command_works_on_an_imported_run(gpt2_folder: Path, command: Callable, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(PROSE)
    done = command("import", "hf", gpt2_folder, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "imported"
    assert command("info", "run").returncode == 0
    assert command("sample", "run", "--max-new-tokens", "5").returncode == 0
    assert json.loads(command("eval", "run", "--data", text, "--json").stdout)["loss"] > 0
    refused = command("eval", "run")
    assert refused.returncode == 2
    assert "was trained elsewhere" in refused.stderr
    tuned = command("finetune", "run", "--data", text, "--lora", "--max-iters", "5", "--out", "tuned", "--json")
    assert tuned.returncode == 0, tuned.stderr
    assert json.loads(tuned.stdout)["own_loss_before"] is None


EXPORTED: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    "characters": (lambda: CharTokenizer.from_text(PROSE), {}),
    "chat": (lambda: CharTokenizer([*sorted({*PROSE}), "\ufffd"], CHAT_TOKENS, "\ufffd"), GPT2),
    "bpe": (lambda: BPETokenizer.train(PROSE, 300, [END]), GPT2),
    "unigram": (lambda: SentencePieceTokenizer.train(PROSE, 450), {}),
}


@pytest.mark.parametrize("kind", EXPORTED)
def test_an_exported_run_comes_back_with_its_tokenizer_logits_and_weights(kind: str, tmp_path: Path) -> None:
    make, settings = EXPORTED[kind]
    run = make_random_run(tmp_path / "run", make(), block_size=24, **settings)
    export_run(run, "hf", tmp_path / "out")
    again = import_gpt2(tmp_path / "out", tmp_path / "again")
    assert again.tokenizer.to_bytes() == run.tokenizer.to_bytes()
    assert again.info.instructions == (True if kind == "chat" else None)
    ids = torch.arange(24)[None]
    with torch.inference_mode():
        torch.testing.assert_close(again.model(ids)[0], run.model(ids)[0], atol=2e-5, rtol=1e-5)
    folded = set() if again.model.config.tied_head else {"lm_head.weight", "lm_head.bias", "ln_f.bias"}
    ours = run.model.state_dict()
    for name, tensor in again.model.state_dict().items():
        if name not in folded and name in ours:
            assert torch.equal(tensor, ours[name]), name


def test_rows_that_pad_a_vocabulary_are_left_out(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "padded"
    shutil.copytree(gpt2_folder, folder)
    model = transformers.GPT2LMHeadModel.from_pretrained(gpt2_folder)
    model.resize_token_embeddings(448)  # the next multiple of 64
    model.save_pretrained(folder)
    messages: list[str] = []
    run = import_gpt2(folder, tmp_path / "run", messages.append)
    assert messages == ["48 rows of the model, which pad its vocabulary to 448, are left out"]
    ids = torch.randint(400, (2, 48))
    with torch.no_grad():
        assert (run.model(ids)[0] - model.eval()(ids).logits[..., :400]).abs().max() < 1e-4


def test_a_padding_token_without_a_row_is_left_out(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pad"
    shutil.copytree(gpt2_folder, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    messages: list[str] = []
    run = import_gpt2(folder, tmp_path / "run", messages.append)
    assert messages == ["[PAD]: left out, because the model has no row for it"]
    assert run.tokenizer.vocab_size == 400
    assert run.tokenizer.encode("the [PAD] text") == tokenizer.encode("the [PA") + tokenizer.encode("D] text")


def test_vocab_json_merges_txt_and_added_tokens_json_are_a_tokenizer(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    model = transformers.GPT2LMHeadModel.from_pretrained(gpt2_folder)
    model.resize_token_embeddings(402)
    model.save_pretrained(folder)
    content = json.loads((gpt2_folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(content["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, content["merges"])))
    (folder / "added_tokens.json").write_text(json.dumps({"<b>": 400, "<|user|>": 401}))
    special = {"eos_token": END, "additional_special_tokens": [{"content": "<|user|>"}]}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    run = import_gpt2(folder, tmp_path / "run")
    assert run.tokenizer.special_tokens == {END: 0, "<|user|>": 401}
    assert run.tokenizer.encode("<b>")[0] == 400
    assert 401 not in run.tokenizer.encode("<|user|>")
    assert minigpt.load(tmp_path / "run").tokenizer.encode("a<b>") == run.tokenizer.encode("a<b>")


def test_a_model_without_a_fitting_tokenizer_is_refused(gpt2_folder: Path, command: Callable, tmp_path: Path) -> None:
    transformers.GPT2LMHeadModel.from_pretrained(gpt2_folder).save_pretrained(tmp_path / "bare")
    done = command("import", "hf", "bare")
    assert done.returncode == 2
    assert "has no tokenizer that can be read" in done.stderr
    other = ByteLevelBPETokenizer(add_prefix_space=False)
    other.train_from_iterator([PROSE], vocab_size=300, show_progress=False)
    other.save(str(tmp_path / "bare" / "tokenizer.json"))
    done = command("import", "hf", "bare")
    assert done.returncode == 2
    assert "it has 300 tokens, and the model knows 400" in done.stderr
    done = command("import", "hf", "nobody/nothing", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2
    assert "'nobody/nothing' is no folder here" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

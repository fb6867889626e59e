"""A GPT-2 imported as a run: it gives transformers' logits, and every command works on it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from texts import PROSE
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel

import minigpt
from minigpt.exchange.huggingface import import_gpt2

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 with random weights and its own tokenizer, saved by transformers and tokenizers."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-gpt2"
    tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator([PROSE], vocab_size=400, special_tokens=[END], show_progress=False)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=48, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_an_imported_gpt2_gives_the_logits_and_greedy_text_of_transformers(gpt2_folder: Path, tmp_path: Path) -> None:
    run = import_gpt2(gpt2_folder, tmp_path / "run")
    other = GPT2LMHeadModel.from_pretrained(gpt2_folder).eval()
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


def test_a_model_without_a_fitting_tokenizer_is_refused(gpt2_folder: Path, command: Callable, tmp_path: Path) -> None:
    GPT2LMHeadModel.from_pretrained(gpt2_folder).save_pretrained(tmp_path / "bare")
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

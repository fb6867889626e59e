"""New tokens beside an adapter: only their rows train, and over the base the adapter gives the fine-tuned run."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from answer_training import train_to_answer
from texts import PROSE

import minigpt
from minigpt.config import ModelConfig
from minigpt.errors import ConfigError, DataError, ExchangeError
from minigpt.finetuning.adapter_files import CONFIG, WEIGHTS, apply_adapters
from minigpt.finetuning.lora import compute_merged_weights, count_trained_parameters
from minigpt.finetuning.vocabulary_resize import (
    OLD_IDS,
    TOKENIZER,
    TOKENS,
    extend_tokenizer,
    resize_embeddings,
    train_new_rows,
)
from minigpt.model import build
from minigpt.runs.run import Run
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS, END_OF_ANSWER, ChatTemplate
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer


@pytest.fixture(scope="module")
def euro_run(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that always answers €, a character its base has never met. Only an adapter trained."""
    settings = {"method": "lora", "max_iters": 200, "learning_rate": 2e-2}
    found = train_to_answer(trained, tmp_path_factory.mktemp("euro"), "€", **settings)
    assert found.accuracies["the examples"].after.share == 1
    return found.run


def test_only_the_rows_of_new_tokens_train(trained: Run) -> None:
    base = minigpt.load(trained.path).model
    V, C = base.token_embedding_table.weight.shape
    old = [*range(V), None, None]
    model = resize_embeddings(base, old, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.requires_grad_(False)
    train_new_rows(model, old)
    assert count_trained_parameters(model) == 2 * (2 * C + 1)  # embedding, last layer, and its bias
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    ids = torch.tensor([[V, 1, V + 1, 2]])
    model(ids, ids)[1].backward()
    optimizer.step()
    after = compute_merged_weights(model)
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        if name in ("token_embedding_table.weight", "lm_head.weight", "lm_head.bias"):
            assert torch.equal(tensor[:V], before[name][:V])
            assert not torch.equal(tensor[V:], before[name][V:])
        else:
            assert torch.equal(tensor, before[name])


def test_the_adapter_over_its_base_gives_the_fine_tuned_run(euro_run: Run, trained: Run, command: Callable) -> None:
    whole = apply_adapters(minigpt.load(trained.path), [str(euro_run.path)])
    opened = minigpt.load(euro_run.path)
    assert whole.tokenizer.to_bytes() == opened.tokenizer.to_bytes()
    assert whole.info.exchanges == opened.info.exchanges == 1
    for name, tensor in opened.model.state_dict().items():
        assert torch.allclose(whole.model.state_dict()[name], tensor, atol=1e-6), name
    sizes = sum(path.stat().st_size for path in (euro_run.path / "adapter").iterdir())
    assert sizes < (euro_run.path / "model.safetensors").stat().st_size * 2
    for where in ([euro_run.path], [trained.path, "--adapter", euro_run.path / "adapter"]):
        said = command("chat", *where, "--temperature", "0", "--max-new-tokens", "3", input="q1\nq500\nq2\n")
        assert said.stdout == "€\n€\n€\n", said.stderr
        assert "answers each without the earlier ones" in said.stderr


def test_the_adapter_has_the_rows_of_new_and_moved_tokens_for_peft(euro_run: Run, tmp_path: Path) -> None:
    run = train_to_answer(euro_run, tmp_path, "£", method="lora", max_iters=2).run  # the special tokens move by one
    folder = run.path / "adapter"
    old_ids = safetensors.torch.load_file(folder / TOKENS)[OLD_IDS].tolist()
    changed = [n for n, i in enumerate(old_ids) if i != n]
    assert len(changed) > old_ids.count(-1) > 0
    tables = json.loads((folder / CONFIG).read_text())["trainable_token_indices"]
    assert tables == {"transformer.wte": changed, "lm_head": changed}
    rows, weights = safetensors.torch.load_file(folder / WEIGHTS), minigpt.load(run.path).model.state_dict()
    for table, name in zip(tables, ("token_embedding_table.weight", "lm_head.weight"), strict=True):
        found = rows[f"base_model.model.{table}.token_adapter.trainable_tokens_delta"]
        assert torch.equal(found, weights[name][changed])


def test_damaged_or_unfitting_tokens_are_refused(euro_run: Run, trained: Run, tmp_path: Path) -> None:
    def opened(*adapters: str) -> Run:
        return apply_adapters(minigpt.load(trained.path), adapters)

    with pytest.raises(ConfigError, match="both bring tokens of their own"):
        opened(f"{euro_run.path}:0.5", f"{euro_run.path}:0.5")
    good = safetensors.torch.load((euro_run.path / "adapter" / TOKENS).read_bytes())
    folder = tmp_path / "adapter"
    shutil.copytree(euro_run.path / "adapter", folder)
    bad = {
        "its tokens are not": {**good, OLD_IDS: torch.full_like(good[OLD_IDS], 10_000)},
        "tokens are not the base's": {**good, OLD_IDS: good[OLD_IDS][:-1]},
        "not the base's and more": {name: rows for name, rows in good.items() if name != OLD_IDS},
        "it has no rows of": {**good, "lm_head.weight": good["lm_head.weight"][:, :-1]},
        "has no rows of": {name: rows for name, rows in good.items() if name != "lm_head.weight"},
        "not a finite number": {**good, "lm_head.weight": good["lm_head.weight"] * torch.inf},
    }
    for message, tensors in bad.items():
        (folder / TOKENS).write_bytes(safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()}))
        with pytest.raises(ExchangeError, match=message):
            opened(str(folder))
    (folder / TOKENS).write_bytes(b"nonsense")
    with pytest.raises(ExchangeError, match="cannot be read as safetensors"):
        opened(str(folder))
    shutil.copy(euro_run.path / "adapter" / TOKENS, folder / TOKENS)
    (folder / TOKENIZER).write_text("{}")
    with pytest.raises(ExchangeError, match="is damaged"):
        opened(str(folder))


SHAPE = ModelConfig(vocab_size=70, block_size=48, n_embd=32, n_head=2, n_layer=2)


@pytest.mark.parametrize(
    "settings", [{"implementation": "fast"}, {"implementation": "lecture"}, {"architecture": "modern"}]
)
def test_a_larger_vocabulary_keeps_every_old_row_and_logit(settings: dict) -> None:
    before = CharTokenizer(sorted(set("hello wrd")), ["<|endoftext|>"])
    torch.manual_seed(0)
    shape = dataclasses.replace(SHAPE, vocab_size=before.vocab_size, **settings)
    model = build(shape).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tokenizer, old_ids = extend_tokenizer(before, CHAT_TOKENS, ["hello, 2 worlds"])
    assert [tokenizer.encode(c) for c in "helo wrd"] == [before.encode(c) for c in "helo wrd"]
    assert set(tokenizer.stoi) - set(before.stoi) == {",", "2", "s"}
    larger = resize_embeddings(model, old_ids, seed=0)
    assert larger.config.vocab_size == tokenizer.vocab_size == before.vocab_size + 3 + len(CHAT_TOKENS)
    text = torch.tensor([before.encode("hello world")])
    with torch.no_grad():
        new = torch.tensor([i if i is not None else -1 for i in old_ids])
        kept = torch.cat([larger(text)[0][..., (new == i).nonzero()[0]] for i in range(before.vocab_size)], dim=-1)
        assert torch.allclose(kept, model(text)[0], atol=1e-6)
    assert torch.equal(larger.token_embedding_table.weight[: len(before.stoi)], model.token_embedding_table.weight[:-1])
    assert extend_tokenizer(tokenizer, CHAT_TOKENS, ["hello"])[1] == list(range(tokenizer.vocab_size))
    assert resize_embeddings(larger, list(range(tokenizer.vocab_size)), 0) is larger


def test_a_bpe_tokenizer_gets_special_tokens_and_sentencepiece_refuses() -> None:
    bpe = BPETokenizer.train(PROSE, 300, ["<|endoftext|>"])
    larger, old_ids = extend_tokenizer(bpe, CHAT_TOKENS)
    assert larger.encode(PROSE) == bpe.encode(PROSE)
    assert old_ids == [*range(300), None, None, None, None]
    assert larger.decode([larger.special_tokens[END_OF_ANSWER]]) == END_OF_ANSWER
    with pytest.raises(DataError, match="cannot be given special tokens"):
        extend_tokenizer(SentencePieceTokenizer.train(PROSE, 500), CHAT_TOKENS)
    with pytest.raises(DataError, match="knows no instructions"):
        ChatTemplate(bpe)

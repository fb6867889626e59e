"""Each view's figures against an independent computation, and what is done about what cannot be seen."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch.nn import functional as F

import minigpt
from minigpt.config import ModelConfig
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError, DataError, RunError, UnknownCharacterError
from minigpt.model.gpt import GPT
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel, Head
from minigpt.model.loss import compute_exact_loss, compute_mean_loss
from minigpt.runs.run import Run
from minigpt.studies.look.attention import compute_attention_maps
from minigpt.studies.look.embedding import classify_character, measure_neighbour_kinds, project_to_plane
from minigpt.studies.look.heads import find_redundant_heads, measure_head_ablation
from minigpt.studies.look.position import compute_loss_by_position
from minigpt.studies.look.temperature import TEMPERATURES, compute_entropies, compute_next_distributions
from minigpt.studies.look.views import VIEWS, look

SMALL = ModelConfig(vocab_size=11, block_size=8, n_embd=12, n_head=3, n_layer=2, dropout=0.4)


def small_model() -> GPTLanguageModel:
    torch.manual_seed(0)
    model = GPTLanguageModel(SMALL)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5)
    return model


@pytest.fixture(scope="module")
def bigram(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"max_iters": 20, "eval_interval": 20, "snapshots": 0, "device": "cpu"}
    return minigpt.train("bigram", data=text_file, out=tmp_path_factory.mktemp("runs") / "bigram", **settings)


@pytest.mark.parametrize("T", [1, 5, 8])
def test_attention_sums_to_one_and_never_looks_ahead(T: int) -> None:
    model = small_model()
    maps = compute_attention_maps(model, torch.randint(11, (T,)))
    assert maps.shape == (2, 3, T, T)
    assert maps.sum(dim=-1).allclose(torch.ones(2, 3, T), atol=1e-6)
    assert not maps.triu(diagonal=1).any()
    assert model.training
    assert not any(head.dropout._forward_pre_hooks for head in model.modules() if isinstance(head, Head))


def test_attention_is_what_the_head_computes() -> None:
    model, idx = small_model(), torch.randint(11, (8,))
    maps = compute_attention_maps(model, idx)
    model.eval()
    x = model.token_embedding_table(idx[None]) + model.position_embedding_table(torch.arange(8))
    first = model.blocks[0].ln1(x)
    for h, head in enumerate(model.blocks[0].sa.heads):
        scores = head.query(first)[0] @ head.key(first)[0].T / math.sqrt(4)
        for t in range(8):
            assert maps[0, h, t, : t + 1].allclose(F.softmax(scores[t, : t + 1], dim=-1), atol=1e-5)
    x = model.blocks[0](x)
    second = model.blocks[1].ln1(x)
    gathered = maps[1, 2] @ model.blocks[1].sa.heads[2].value(second)[0]
    assert gathered.allclose(model.blocks[1].sa.heads[2](second)[0], atol=1e-5)


def test_the_fast_model_s_maps_and_worth_are_the_lecture_s() -> None:
    lecture = small_model()
    fast = GPT.from_lecture(lecture.state_dict(), lecture.config.dropout)
    idx, x, y = torch.randint(11, (8,)), torch.randint(11, (20, 8)), torch.randint(11, (20, 8))
    maps = compute_attention_maps(fast, idx)
    assert maps.allclose(compute_attention_maps(lecture, idx), atol=1e-6)
    assert not maps.triu(diagonal=1).any()
    (loss, worth), (expected_loss, expected) = measure_head_ablation(fast, x, y), measure_head_ablation(lecture, x, y)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert worth.allclose(expected, atol=1e-6)
    assert loss == compute_mean_loss(fast, x, y)  # every hook is off again
    assert fast.training


def test_a_head_is_worth_what_the_loss_rises_by() -> None:
    model = small_model()
    x, y = torch.randint(11, (20, 8)), torch.randint(11, (20, 8))
    loss, worth = measure_head_ablation(model, x, y)
    assert worth.shape == (2, 3)
    assert loss == compute_mean_loss(model, x, y)  # every head is back
    silenced = small_model()
    silenced.blocks[1].sa.heads[0].value.weight.data.zero_()  # a head whose values are zero answers zero
    assert float(worth[1, 0]) == pytest.approx(compute_mean_loss(silenced, x, y) - loss, abs=1e-6)
    assert find_redundant_heads(torch.tensor([[0.2, 0.004], [-0.1, 0.3]])) == [(1, 2), (2, 1)]


@pytest.mark.parametrize("length", [3, 9, 10, 500])
def test_the_positions_add_up_to_the_exact_loss(length: int) -> None:
    model, ids = small_model(), torch.randint(11, (length,))
    curve = compute_loss_by_position(model, ids)
    counts = torch.bincount(torch.arange(length - 1) % 8)
    assert len(curve) == min(8, length - 1)
    assert float((curve * counts).sum() / (length - 1)) == pytest.approx(compute_exact_loss(model, ids), rel=1e-6)
    logits = small_model().eval()(ids[None, :2])[0][0]
    if length == 3:
        assert curve.tolist() == pytest.approx(F.cross_entropy(logits, ids[1:], reduction="none").tolist(), rel=1e-5)


def test_two_dimensions_are_the_best_two() -> None:
    table = torch.randn(30, 6, dtype=torch.float64) * torch.tensor([5.0, 3, 1, 1, 1, 1], dtype=torch.float64)
    plane = project_to_plane(table)
    centred = table - table.mean(dim=0)
    eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred)
    assert plane.square().sum(dim=0).tolist() == pytest.approx(eigenvalues.flip(0)[:2].tolist())
    assert (centred @ vectors[:, -1]).abs().allclose(plane[:, 0].abs())
    assert project_to_plane(torch.randn(5, 1)).shape == (5, 2)
    assert torch.equal(project_to_plane(table), project_to_plane(table.clone()))


def test_like_lies_with_like_or_does_not() -> None:
    kinds = ["vowels"] * 10 + ["capitals"] * 10
    apart = torch.cat(
        [torch.tensor([[1.0, 0.1]]) + torch.rand(10, 2) / 9, torch.tensor([[-1.0, 0]]) - torch.rand(10, 2) / 9]
    )
    assert measure_neighbour_kinds(apart, kinds) == (1.0, pytest.approx(9 / 19))
    torch.manual_seed(0)
    share, chance = measure_neighbour_kinds(torch.randn(400, 20), (["vowels"] * 200 + ["capitals"] * 200))
    assert share == pytest.approx(chance, abs=0.06)
    assert [classify_character(c) for c in "aéxZ3. \n€あ"] == [
        *("vowels", "vowels", "consonants", "capitals", "digits", "punctuation"),
        *("white space", "white space", "punctuation", "letters"),
    ]


def test_a_vocabulary_too_large_to_draw_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"drawn for 4,096 different tokens at most, and this run has 50,257"):
        measure_neighbour_kinds(torch.zeros(50_257, 2), ["vowels"] * 50_257)


def test_temperature_divides_the_logits() -> None:
    model, idx = small_model(), torch.randint(11, (20,))
    rows = compute_next_distributions(model, idx)
    logits = small_model().eval()(idx[None, -8:])[0][0, -1].double()
    for row, temperature in zip(rows, TEMPERATURES, strict=True):
        assert row.allclose(F.softmax(logits / temperature, dim=-1))
    assert compute_entropies(torch.full((1, 8), 1 / 8)) == pytest.approx([3.0])
    assert compute_entropies(rows) == sorted(compute_entropies(rows))


def test_every_view_of_a_transformer(trained: Run, bigram: Run, tmp_path: Path) -> None:
    views = {seen.name: seen for seen in look(trained, tmp_path / "seen", against=[bigram])}
    assert list(views) == list(VIEWS)
    for seen in views.values():
        content = seen.path.read_bytes()
        assert content.startswith(b"\x89PNG" if seen.path.suffix == ".png" else b"<!doctype html>")
    dataset = Dataset(trained.tokenizer.encode(trained.corpus().text), trained.config)
    shown = trained.tokenizer.decode(dataset.val[:500].tolist())
    assert views["surprise"].figures["text"] == shown
    assert sum(views["surprise"].figures["losses"]) / 499 == pytest.approx(trained.loss(shown), rel=1e-5)
    assert views["attention"].figures["text"] == shown[-16:]
    assert views["curves"].figures["validation_losses"] == {
        str(run.path): run.record.validation_loss for run in (trained, bigram)
    }
    assert len(views["position"].figures["losses"]) == 16


def test_what_a_bigram_lacks_is_left_out_or_refused(bigram: Run, tmp_path: Path) -> None:
    left_out = {seen.name: seen.says for seen in look(bigram, tmp_path / "seen") if seen.path is None}
    assert left_out == {
        "attention": "this model has no attention heads: look at a transformer's run",
        "heads": "this model has no attention heads: look at a transformer's run",
        "timeline": "the run kept no texts on its way: train with --snapshots 12",
    }
    with pytest.raises(ConfigError, match="no attention heads"):
        list(look(bigram, tmp_path / "seen", only=["heads"]))
    with pytest.raises(ConfigError):
        compute_attention_maps(BigramLanguageModel(SMALL), torch.tensor([1, 2]))


def test_a_run_whose_text_is_gone_still_shows_what_it_can(trained: Run, text: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text)
    run = minigpt.train(data=file, out=tmp_path / "run", device="cpu", **TINY | {"max_iters": 5})
    file.unlink()
    views = {seen.name: seen for seen in look(run, text="KEEPER:\nThe sea")}
    assert {name for name, seen in views.items() if seen.path is None} == {"heads", "position", "copied"}
    assert "there is no such file" in views["heads"].says
    assert views["attention"].path == run.path / "look" / "attention.png"


def test_impossible_wishes_are_refused_at_once(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no view 'atention'.*did you mean 'attention'"):
        look(trained, tmp_path / "seen", only=["atention"])
    with pytest.raises(DataError, match="the text to look at is empty"):
        look(trained, tmp_path / "seen", text="")
    with pytest.raises(UnknownCharacterError):
        look(trained, tmp_path / "seen", text="Ω")
    assert not (tmp_path / "seen").exists()
    (seen,) = look(trained, tmp_path / "seen", text="s", only=["attention"])  # one character is enough for this
    assert seen.path.exists()


def test_damaged_snapshots_are_named(trained: Run, tmp_path: Path) -> None:
    path = shutil.copytree(trained.path, tmp_path / "run")
    (path / "snapshots.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"snapshots\.jsonl"):
        list(look(minigpt.load(path), only=["timeline"]))

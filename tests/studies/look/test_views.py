"""Each view's figures against an independent computation, and what happens where a view cannot be made."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch
from answer_training import train_to_answer
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
from minigpt.studies.look.embedding import classify_character, measure_neighbor_kinds, project_to_plane
from minigpt.studies.look.heads import find_unused_heads, measure_head_ablation
from minigpt.studies.look.position import compute_loss_by_position
from minigpt.studies.look.temperature import TEMPERATURES, compute_next_distributions
from minigpt.studies.look.views import VIEWS, look
from minigpt.studies.next_token import compute_entropies

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
def test_attention_weights_sum_to_one_and_are_zero_for_later_positions(T: int) -> None:
    model = small_model()
    maps = compute_attention_maps(model, torch.randint(11, (T,)))
    assert maps.shape == (2, 3, T, T)
    assert maps.sum(dim=-1).allclose(torch.ones(2, 3, T), atol=1e-6)
    assert not maps.triu(diagonal=1).any()
    assert model.training
    assert not any(head.dropout._forward_pre_hooks for head in model.modules() if isinstance(head, Head))


def test_the_maps_are_the_weights_that_the_heads_compute() -> None:
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


def test_the_fast_model_has_the_maps_and_ablations_of_the_lectures_model() -> None:
    lecture = small_model()
    fast = GPT.from_lecture(lecture.state_dict(), lecture.config.dropout)
    idx, x, y = torch.randint(11, (8,)), torch.randint(11, (20, 8)), torch.randint(11, (20, 8))
    maps = compute_attention_maps(fast, idx)
    assert maps.allclose(compute_attention_maps(lecture, idx), atol=1e-6)
    assert not maps.triu(diagonal=1).any()
    (loss, rise), (expected_loss, expected) = measure_head_ablation(fast, x, y), measure_head_ablation(lecture, x, y)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert rise.allclose(expected, atol=1e-6)
    assert loss == compute_mean_loss(fast, x, y)  # every hook was removed
    assert fast.training


def test_ablating_a_head_equals_zeroing_its_values() -> None:
    model = small_model()
    x, y = torch.randint(11, (20, 8)), torch.randint(11, (20, 8))
    loss, rise = measure_head_ablation(model, x, y)
    assert rise.shape == (2, 3)
    assert loss == compute_mean_loss(model, x, y)  # every hook was removed
    silenced = small_model()
    silenced.blocks[1].sa.heads[0].value.weight.data.zero_()  # a head whose values are zero returns zero
    assert float(rise[1, 0]) == pytest.approx(compute_mean_loss(silenced, x, y) - loss, abs=1e-6)
    assert find_unused_heads(torch.tensor([[0.2, 0.004], [-0.1, 0.3]])) == [(1, 2), (2, 1)]


@pytest.mark.parametrize("length", [3, 9, 10, 500])
def test_the_losses_by_position_average_to_the_exact_loss(length: int) -> None:
    model, ids = small_model(), torch.randint(11, (length,))
    curve = compute_loss_by_position(model, ids)
    counts = torch.bincount(torch.arange(length - 1) % 8)
    assert len(curve) == min(8, length - 1)
    assert float((curve * counts).sum() / (length - 1)) == pytest.approx(compute_exact_loss(model, ids), rel=1e-6)
    logits = small_model().eval()(ids[None, :2])[0][0]
    if length == 3:
        assert curve.tolist() == pytest.approx(F.cross_entropy(logits, ids[1:], reduction="none").tolist(), rel=1e-5)


def test_the_plane_has_the_two_largest_principal_components() -> None:
    table = torch.randn(30, 6, dtype=torch.float64) * torch.tensor([5.0, 3, 1, 1, 1, 1], dtype=torch.float64)
    plane = project_to_plane(table)
    centered = table - table.mean(dim=0)
    eigenvalues, vectors = torch.linalg.eigh(centered.T @ centered)
    assert plane.square().sum(dim=0).tolist() == pytest.approx(eigenvalues.flip(0)[:2].tolist())
    assert (centered @ vectors[:, -1]).abs().allclose(plane[:, 0].abs())
    assert project_to_plane(torch.randn(5, 1)).shape == (5, 2)
    assert torch.equal(project_to_plane(table), project_to_plane(table.clone()))


def test_neighbors_are_of_one_kind_in_a_clustered_table_and_at_chance_in_a_random_one() -> None:
    kinds = ["vowels"] * 10 + ["capitals"] * 10
    apart = torch.cat(
        [torch.tensor([[1.0, 0.1]]) + torch.rand(10, 2) / 9, torch.tensor([[-1.0, 0]]) - torch.rand(10, 2) / 9]
    )
    assert measure_neighbor_kinds(apart, kinds) == (1.0, pytest.approx(9 / 19))
    torch.manual_seed(0)
    share, chance = measure_neighbor_kinds(torch.randn(400, 20), (["vowels"] * 200 + ["capitals"] * 200))
    assert share == pytest.approx(chance, abs=0.06)
    assert [classify_character(c) for c in "aéxZ3. \n€あ"] == [
        *("vowels", "vowels", "consonants", "capitals", "digits", "punctuation"),
        *("white space", "white space", "punctuation", "letters"),
    ]


def test_a_vocabulary_too_large_to_draw_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"drawn for 4,096 different tokens at most, and this run has 50,257"):
        measure_neighbor_kinds(torch.zeros(50_257, 2), ["vowels"] * 50_257)


def test_temperature_divides_the_logits() -> None:
    model, idx = small_model(), torch.randint(11, (20,))
    rows = compute_next_distributions(model, idx)
    logits = small_model().eval()(idx[None, -8:])[0][0, -1].double()
    for row, temperature in zip(rows, TEMPERATURES, strict=True):
        assert row.allclose(F.softmax(logits / temperature, dim=-1))
    assert compute_entropies(torch.full((1, 8), 1 / 8)) == pytest.approx([3.0])
    assert compute_entropies(rows) == sorted(compute_entropies(rows))


def test_a_transformer_has_every_view(trained: Run, bigram: Run, tmp_path: Path) -> None:
    views = {view.name: view for view in look(trained, tmp_path / "views", against=[bigram])}
    assert list(views) == list(VIEWS)
    for view in views.values():
        content = view.path.read_bytes()
        assert content.startswith(b"\x89PNG" if view.path.suffix == ".png" else b"<!doctype html>")
    dataset = Dataset(trained.tokenizer.encode(trained.corpus().text), trained.config)
    shown = trained.tokenizer.decode(dataset.val[:500].tolist())
    assert views["surprise"].figures["text"] == shown
    assert sum(views["surprise"].figures["losses"]) / 499 == pytest.approx(trained.loss(shown), rel=1e-5)
    assert views["attention"].figures["text"] == shown[-16:]
    assert views["curves"].figures["validation_losses"] == {
        str(run.path): run.info.validation_loss for run in (trained, bigram)
    }
    assert len(views["position"].figures["losses"]) == 16


def test_a_view_that_a_bigram_lacks_is_left_out_or_refused(bigram: Run, tmp_path: Path) -> None:
    left_out = {view.name: view.summary for view in look(bigram, tmp_path / "views") if view.path is None}
    assert left_out == {
        "attention": "this model has no attention heads: look at a transformer's run",
        "heads": "this model has no attention heads: look at a transformer's run",
        "timeline": "the run has no snapshots: train with snapshots=12",
    }
    with pytest.raises(ConfigError, match="no attention heads"):
        list(look(bigram, tmp_path / "views", only=["heads"]))
    with pytest.raises(ConfigError):
        compute_attention_maps(BigramLanguageModel(SMALL), torch.tensor([1, 2]))


def test_a_run_without_its_text_still_has_the_views_that_need_none(trained: Run, text: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text)
    run = minigpt.train(data=file, out=tmp_path / "run", device="cpu", **TINY | {"max_iters": 5, "snapshots": 3})
    file.unlink()
    views = {view.name: view for view in look(run, text="KEEPER:\nThe sea")}
    assert {name for name, view in views.items() if view.path is None} == {"heads", "position", "copied"}
    assert "there is no such file" in views["heads"].summary
    assert views["attention"].path == run.path / "look" / "attention.png"


def test_a_wrong_argument_is_refused_before_the_first_view(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no view 'atention'.*did you mean 'attention'"):
        look(trained, tmp_path / "views", only=["atention"])
    with pytest.raises(DataError, match="the text to look at is empty"):
        look(trained, tmp_path / "views", text="")
    with pytest.raises(UnknownCharacterError):
        look(trained, tmp_path / "views", text="Ω")
    assert not (tmp_path / "views").exists()
    (view,) = look(trained, tmp_path / "views", text="s", only=["attention"])  # one character is enough for this view
    assert view.path.exists()


def test_a_damaged_snapshots_file_is_named_in_the_error(trained: Run, tmp_path: Path) -> None:
    path = shutil.copytree(trained.path, tmp_path / "run")
    (path / "snapshots.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"snapshots\.jsonl"):
        list(look(minigpt.load(path), only=["timeline"]))


def test_an_instruction_tuned_run_lacks_only_the_timeline(trained: Run, tmp_path: Path) -> None:
    run = train_to_answer(trained, tmp_path, "ab", max_iters=2).run
    left_out = {view.name: view.summary for view in look(run, tmp_path / "look") if view.picture is None}
    assert list(left_out) == ["timeline"]
    info = dataclasses.replace(run.info, base=str(tmp_path))
    with pytest.raises(RunError):
        list(look(dataclasses.replace(run, info=info), tmp_path / "look", only=["heads"]))


def test_an_imported_run_is_looked_at_with_any_text(trained: Run, text_file: Path, tmp_path: Path) -> None:
    info = dataclasses.replace(trained.info, status="imported", data_sha256="0" * 64)
    run = dataclasses.replace(trained, info=info)
    with pytest.raises(DataError, match="name one with data=…"):
        list(look(run, tmp_path / "look", only=["heads"]))
    read_text = ["surprise", "heads", "position", "copied"]
    assert all(view.path for view in look(run, tmp_path / "look", data=text_file, only=read_text))

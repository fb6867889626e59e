"""Every command on a run of the modern architecture trained with Muon."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from answer_training import train_to_answer
from conftest import TINY, TINY_FLAGS

import minigpt
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.runs.run import Run
from minigpt.studies.look.attention import compute_attention_maps
from minigpt.studies.look.views import VIEWS

SETTINGS = {"max_iters": 120, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def modern(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("modern") / "run"
    return minigpt.train(
        data=text_file, out=out, architecture="modern", optimizer="muon", **TINY | SETTINGS | {"snapshots": 2}
    )


def test_a_modern_run_learns_and_opens_unchanged(modern: Run) -> None:
    assert modern.info.validation_loss < 2.0
    opened = minigpt.load(modern.path)
    assert all(torch.equal(opened.model.state_dict()[name], t) for name, t in modern.model.state_dict().items())
    assert opened.generate("the ", max_new_tokens=40, seed=1) == modern.generate("the ", max_new_tokens=40, seed=1)


def test_info_names_the_parts_of_a_modern_run(modern: Run, command: Callable) -> None:
    done = command("info", modern.path, "--json")
    content = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert content["config"]["model"]["architecture"] == "modern"
    parts = content["parameters_by_part"]
    assert {"token shift", "self-attention", "feed-forward"} < parts.keys()
    assert sum(parts.values()) == content["parameters"]


def test_look_makes_every_view_of_a_modern_run(modern: Run, command: Callable, tmp_path: Path) -> None:
    names = VIEWS.keys() - {"copied"}  # it writes 2,000 characters, which takes as long as all other views
    only = [word for name in names for word in ("--only", name)]
    done = command("look", modern.path, "--out", tmp_path, "--json", *only)
    views = json.loads(done.stdout)["views"]
    assert done.returncode == 0, done.stderr
    assert views.keys() == names
    assert all(Path(view["path"]).is_file() for view in views.values())
    maps = compute_attention_maps(modern.model, torch.tensor(modern.tokenizer.encode("the sea and")))
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 2, 11))
    assert not maps.triu(1).any()


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.02), (4, 0.2)])
def test_a_modern_run_can_be_quantized(
    bits: int, tolerance: float, modern: Run, command: Callable, tmp_path: Path
) -> None:
    done = command("quantize", modern.path, "--bits", bits, "--out", tmp_path / "few")
    assert done.returncode == 0, done.stderr
    few = minigpt.load(tmp_path / "few")
    assert few.info.validation_loss == pytest.approx(modern.info.validation_loss, abs=tolerance)
    assert len(few.generate(max_new_tokens=20, seed=0)) == 20


@pytest.mark.parametrize("method", ["--lora", "--qlora"])
def test_a_modern_run_can_be_fine_tuned(
    method: str, modern: Run, text_file: Path, command: Callable, tmp_path: Path
) -> None:
    flags = ["--data", text_file, "--out", tmp_path / "tuned", "--max-iters", 3]
    done = command("finetune", modern.path, method, "--json", *flags)
    assert done.returncode == 0, done.stderr
    tuned = minigpt.load(tmp_path / "tuned")
    assert tuned.config.training.optimizer == "adamw"
    assert tuned.info.trained_parameters == 2 * LoRAConfig().rank * (4 * (16 + 16) + 2 * (16 + 64))


def test_a_modern_run_can_be_trained_on_instructions(modern: Run, tmp_path: Path) -> None:
    found = train_to_answer(modern, tmp_path, "€", max_iters=150, learning_rate=1e-2)
    assert found.accuracies["the examples"].after.share == 1
    assert minigpt.load(found.run.path).config.model.architecture == "modern"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--max-minutes", "0"], "max_minutes must be a number above 0 and at most 1000000.0, not 0.0"),
        (["--max-minutes", "-1"], "max_minutes must be a number above 0 and at most 1000000.0, not -1.0"),
        (["--optimizer", "muon", "--precision", "fp16"], "choose the precision bf16 or fp32"),
        (["--max-minutes", "1e308"], "max_minutes must be a number above 0 and at most 1000000.0, not 1e+308"),
        (["--preset", "bigram", "--optimizer", "muon"], "muon is for the matrices of blocks"),
        (["--architecture", "modern", "--tied-head"], "the modern architecture has no"),
        (["--preset", "cpu-2min", "--device", "mps"], "the device 'mps' is not available"),
    ],
)
def test_a_wrong_flag_for_a_modern_run_is_refused_in_one_sentence(
    flags: list[str], reason: str, text_file: Path, command: Callable, tmp_path: Path
) -> None:
    where = ["--data", text_file, "--out", tmp_path / "run"]
    small = [] if "--preset" in flags else TINY_FLAGS
    done = command("train", *where, *small, *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()

"""Early stopping, and what the diagnostics say of a finished training."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, make_text

import minigpt
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError
from minigpt.runs.run import Run
from minigpt.runs.run_info import Metrics
from minigpt.system.advice import advise_commands
from minigpt.training.diagnostics import compute_unigram_loss, diagnose
from minigpt.training.resume import resume


def test_without_patience_left_the_training_ends(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"max_iters": 4000, "eval_interval": 10, "learning_rate": 0.03, "train_fraction": 0.02}
    run = minigpt.train(data=text_file, out=tmp_path / "run", patience=3, **settings | {"snapshots": 0})
    assert run.info.status == "finished"
    assert run.info.step == run.metrics[-1].step < 4000
    assert run.metrics.index(run.best) == len(run.metrics) - 4
    assert resume(run.path).info == run.info
    with pytest.raises(ConfigError, match="a patience of 3 ended the run at step"):
        resume(run.path, eval_interval=20)
    assert resume(run.path, patience=0, max_iters=run.info.step + 3).info.status == "finished"


def diagnose_losses(run: Run, losses: list[tuple[float, float]], **changes: Any) -> str:
    """What the diagnostics say of a run with those training and validation losses."""
    metrics = [Metrics(n * 100, *both, 1e-3, 1.0, n) for n, both in enumerate(losses)]
    info = dataclasses.replace(run.info, step=metrics[-1].step, **changes)
    dataset = Dataset(run.tokenizer.encode(make_text()), run.config)
    return diagnose(dataclasses.replace(run, metrics=metrics, info=info), dataset) or ""


def test_the_diagnostics_find_what_is_wrong_with_a_curve(trained: Run) -> None:
    down = [(3.4 - 0.2 * n, 3.4 - 0.2 * n) for n in range(10)]
    flat = [(1.7, 1.7)] * 10
    assert diagnose_losses(trained, down + flat) == ""
    assert "still improving: the validation loss fell by" in diagnose_losses(trained, down)
    overfit = [(1.7 - 0.02 * n, 1.7 + 0.03 * n) for n in range(10)]
    assert "the model has overfitted since step 900: the validation loss rose" in diagnose_losses(
        trained, down + overfit
    )
    assert "text is too small" in diagnose_losses(trained, down + overfit, parameters=100_000)
    assert "the run diverged: the training loss was 1.60 at step 900" in diagnose_losses(
        trained, down + [(4.2, 4.2)] * 5
    )
    unigram = compute_unigram_loss(Dataset(trained.tokenizer.encode(make_text()), trained.config))
    assert "the run is stuck" in diagnose_losses(trained, [(3.6, 3.6)] + [(unigram, unigram)] * 9)
    assert diagnose_losses(trained, flat[:3]) == ""
    assert diagnose_losses(trained, [*down, *[(0.0, 0.0)] * 20]) == ""  # learned to the end
    by_muon = dataclasses.replace(trained, config=trained.config.override(optimizer="muon", dropout=0.4))
    said = diagnose_losses(by_muon, [(3.6, 3.6)] + [(unigram, unigram)] * 9)
    assert "try muon_learning_rate=0.002 learning_rate=" in said
    with advise_commands():
        said = diagnose_losses(by_muon, [(3.6, 3.6)] + [(unigram, unigram)] * 9)
    assert "try --muon-learning-rate 0.002 --learning-rate" in said
    assert "try dropout=0.5 or" in diagnose_losses(by_muon, down + overfit)


def test_the_diagnostics_find_what_is_wrong_with_real_runs(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    def said(**settings: Any) -> str:
        capfd.readouterr()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        minigpt.train(out=folder, **TINY | {"n_layer": 1, "data": text_file, "eval_interval": 10} | settings)
        return capfd.readouterr().err

    assert "the model is still improving" in said(learning_rate=1e-3, max_iters=100)
    assert "the run is stuck" in said(learning_rate=1e-8, max_iters=100)
    assert "the run diverged" in said(learning_rate=3.0, max_iters=60)
    short = {"train_fraction": 0.02, "learning_rate": 0.02, "max_iters": 200, "eval_interval": 20}
    assert "the text is too small for the model" in said(**short)
    other = tmp_path / "other.txt"  # what is learned of its beginning is wrong at its end, which reads backwards
    other.write_text(make_text(18_000) + make_text(2_000, seed=1)[::-1])
    assert "the model has overfitted since step" in said(
        data=other, learning_rate=0.01, max_iters=200, eval_interval=20
    )
    calm = said(learning_rate=1e-2, max_iters=300, eval_interval=25, schedule="cosine")
    assert not any(word in calm for word in ("diverged", "stuck", "overfitted", "too small"))

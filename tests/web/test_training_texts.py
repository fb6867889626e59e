"""Training texts are read once, and the one that was not asked for longest is forgotten."""

import dataclasses
from pathlib import Path

import pytest
from study_runs import make_study_run

from minigpt.errors import FileError
from minigpt.runs.run import Run
from minigpt.web.training_texts import MAX_TEXTS, TrainingTexts


def with_fraction(run: Run, fraction: float) -> Run:
    """The same run, trained on another share of its text."""
    return dataclasses.replace(run, config=run.config.override(train_fraction=fraction))


def test_each_run_has_its_own_text_which_is_read_once(tmp_path: Path) -> None:
    run, texts = make_study_run("gpt", tmp_path / "run"), TrainingTexts()
    whole = (tmp_path / "run" / "text.txt").read_text()
    half = with_fraction(run, 0.5)
    assert texts.read(run) == whole[: len(whole) * 9 // 10]
    assert texts.read(half) == whole[: len(whole) // 2]
    others = [with_fraction(run, 0.6 + n / 100) for n in range(MAX_TEXTS - 1)]
    for other in others:
        texts.read(run)
        texts.read(other)
    (tmp_path / "run" / "text.txt").unlink()
    assert texts.read(run) == whole[: len(whole) * 9 // 10]
    with pytest.raises(FileError, match="there is no such file"):
        texts.read(half)  # the oldest, which has been forgotten

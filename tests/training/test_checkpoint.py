"""Checkpoints on disk: which weights are kept, where, and how many times."""

import errno
import os
from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch import nn

import minigpt
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.checkpoint_format import BEST, MODEL, CheckpointMetadata
from minigpt.training.resume import resume


def write(run: Path, step: int, *, is_published: bool = True, is_best: bool = True) -> Path:
    """Write a checkpoint whose single weight is its step."""
    metadata = CheckpointMetadata(step, is_published, 8 * step, 1.0, 0.1, "", is_published)
    weights = {"weight": torch.full((1, 1), float(step))}
    CheckpointDirectory(run).write(metadata, weights, {"step": torch.zeros(1)}, [], [], is_best=is_best)
    return CheckpointDirectory(run).get_path(step)


def read(path: Path) -> float:
    """The single weight in a file."""
    model, directory = nn.Linear(1, 1, bias=False), RunDirectory(path.parent)
    directory.model = directory.best = path
    directory.load_weights(model)
    return model.weight.item()


def count_copies(run: Path) -> int:
    """How many files of weights there are, a file with several names counted once."""
    return len({path.stat().st_ino for path in run.rglob("*.safetensors") if path.name in (MODEL, BEST)})


def test_the_run_has_the_newest_evaluated_weights_and_the_best_ones(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for step, is_best, best in [(3, True, None), (4, True, None), (5, False, 4), (6, False, 4), (7, True, None)]:
        write(tmp_path, step, is_best=is_best)
        assert read(run.model) == step
        assert (read(run.best) if run.best.exists() else None) == best


def test_a_checkpoint_between_evaluations_does_not_change_the_runs_weights(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write(tmp_path, 10)
    for step in (12, 14, 16):
        path = write(tmp_path, step, is_published=False, is_best=False)
        assert (read(path / MODEL), read(path / BEST), read(run.model), run.best.exists()) == (step, 10, 10, False)
        assert [kept.name for kept in CheckpointDirectory(tmp_path).list_paths()] == [path.name, "00000010"]


def test_weights_lie_on_disk_at_most_three_times(tmp_path: Path) -> None:
    for step in range(2, 40):
        is_regular = step % 5 == 0 or step == 2
        write(tmp_path, step, is_published=is_regular, is_best=is_regular and step <= 10)
        assert count_copies(tmp_path) <= 3
    checkpoints = CheckpointDirectory(tmp_path)
    newest = checkpoints.open_newest()
    assert newest.metadata.step == 39
    assert checkpoints.restore_run(newest, {}) == 35
    assert read(checkpoints.run.model) == 35
    assert read(checkpoints.run.best) == 10
    assert count_copies(tmp_path) == 3


def test_a_trained_and_resumed_run_has_its_weights_at_most_three_times(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"learning_rate": 1.0, "save_minutes": 1e-9, "snapshots": 0}  # it gets worse
    run = minigpt.train(data=text_file, out=tmp_path / "run", **settings)
    assert (run.path / "best.safetensors").exists()
    assert count_copies(run.path) == 3
    newest = CheckpointDirectory(run.path).open_newest()
    assert newest.model.samefile(run.path / "model.safetensors")
    resume(run.path, max_iters=70)
    assert count_copies(run.path) <= 3


def test_where_there_are_no_hard_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path, 3)
    write(tmp_path, 4, is_best=False)
    run = RunDirectory(tmp_path)
    assert (read(run.model), read(run.best)) == (4, 3)
    assert count_copies(tmp_path) == 5
    assert not list(tmp_path.rglob("*.tmp"))


def test_checkpoints_after_the_one_to_resume_from_are_dropped(tmp_path: Path) -> None:
    before, broken = write(tmp_path, 20), write(tmp_path, 40)
    (broken / MODEL).unlink()
    checkpoints = CheckpointDirectory(tmp_path)
    checkpoints.restore_run(checkpoints.open_newest(), {})
    assert checkpoints.list_paths() == [before]
    assert read(checkpoints.run.model) == 20

"""Snapshots: at which steps the model writes, and that the texts are read back."""

import shutil
from pathlib import Path

import pytest
from conftest import TINY

import minigpt
from minigpt.config import Config
from minigpt.errors import RunError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.evaluation_schedule import choose_snapshot_steps, get_snapshot_steps


def test_snapshot_steps_are_even_on_a_log_scale() -> None:
    assert choose_snapshot_steps(12, 5000) == [0, 1, 2, 5, 13, 30, 71, 166, 388, 910, 2133, 5000]
    assert choose_snapshot_steps(5, 1000) == [0, 1, 10, 100, 1000]
    assert choose_snapshot_steps(3, 7) == [0, 1, 7]
    assert [choose_snapshot_steps(count, 7) for count in (0, 1, 2)] == [[], [7], [0, 7]]
    assert choose_snapshot_steps(12, 1) == [0, 1]
    assert choose_snapshot_steps(1000, 5) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("max_iters", "steps"), [(1, {0, 1}), (20, {0, 20}), (21, {0, 1, 21}), (60, {0, 1, 8, 60})])
def test_a_short_training_has_a_snapshot_for_each_20_steps_at_most(max_iters: int, steps: set[int]) -> None:
    assert get_snapshot_steps(Config().override(max_iters=max_iters).training) == steps
    assert get_snapshot_steps(Config().override(max_iters=max_iters, snapshots=1).training) == {max_iters}


def test_a_long_training_has_all_its_snapshots() -> None:
    assert len(get_snapshot_steps(Config().override(max_iters=220).training)) == 12


@pytest.mark.parametrize("count", range(2, 40))
@pytest.mark.parametrize("max_iters", [1, 2, 17, 999])
def test_the_first_and_the_last_step_have_a_snapshot(count: int, max_iters: int) -> None:
    steps = choose_snapshot_steps(count, max_iters)
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, max_iters)
    assert len(steps) <= count


def test_each_snapshot_has_the_same_start_and_seed(text_file: Path, tmp_path: Path) -> None:
    run = minigpt.train(data=text_file, out=tmp_path / "run", device="cpu", **TINY | {"snapshots": 4})
    kept = RunDirectory(run.path).read_snapshots()
    assert [snapshot.step for snapshot in kept] == [0, 1, 8, 60]
    assert kept[-1].text == run.generate(max_new_tokens=80, seed=run.config.training.seed)
    assert kept[-1].validation_loss == run.metrics[-1].validation_loss
    assert len({snapshot.text for snapshot in kept}) > 1
    assert [m.step for m in run.metrics] == [0, 20, 40, 60]  # its steps are its own
    assert (run.path / "samples.txt").read_text().count("validation loss") == 4


def test_without_snapshots_there_are_no_sample_files(text_file: Path, tmp_path: Path) -> None:
    run = minigpt.train(data=text_file, out=tmp_path / "run", device="cpu", **TINY | {"snapshots": 0, "max_iters": 2})
    assert RunDirectory(run.path).read_snapshots() == []
    assert not (run.path / "samples.txt").exists()


@pytest.mark.parametrize("damage", ["", "{}\n", '{"step": 1, "validation_loss": NaN, "text": "a"}\n', "half a line"])
def test_a_damaged_snapshots_file_is_named(damage: str, trained: Run, tmp_path: Path) -> None:
    path = shutil.copytree(trained.path, tmp_path / "run")
    (path / "snapshots.jsonl").write_text(damage)
    with pytest.raises(RunError, match=r"snapshots\.jsonl'"):
        RunDirectory(path).read_snapshots()

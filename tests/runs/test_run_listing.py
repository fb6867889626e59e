"""A list of runs says what each run is; only runs are deleted, and nothing that a link leads to."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import minigpt
from minigpt.errors import RunError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_listing import SORT_KEYS, delete_run, list_runs, measure_size, prune_run
from minigpt.training.resume import resume


@pytest.fixture
def folder(trained: Run, tmp_path: Path) -> Path:
    """A folder with two runs, a broken run, a link to a run, and a folder that is no run."""
    runs = tmp_path / "runs"
    for name, loss, started in (("b", 3.0, "2026-01-01T10:00:00+00:00"), ("a", 4.0, "2026-02-01T10:00:00+00:00")):
        shutil.copytree(trained.path, runs / name)
        info = dataclasses.replace(trained.info, bits_per_byte=loss, started=started)
        RunDirectory(runs / name).write_info(info)
    shutil.copytree(trained.path, runs / "bro\x1bken")
    (runs / "bro\x1bken" / "run.json").write_text("{")
    (runs / "no-run").mkdir()
    (runs / "no-run" / "letter.txt").write_text("dear")
    (runs / "link").symlink_to(runs / "a")
    (runs / "file").write_text("")
    return runs


def test_each_run_is_listed_with_its_facts(folder: Path) -> None:
    found = {run.path.name: run for run in list_runs(folder)}
    assert found.keys() == {"a", "b", "bro\x1bken"}
    assert (found["a"].status, found["a"].preset, found["a"].bits_per_byte) == ("finished", "lecture", 4.0)
    assert found["bro\x1bken"].status == "broken"
    assert "is damaged" in (found["bro\x1bken"].error or "") or "JSON" in (found["bro\x1bken"].error or "")


@pytest.mark.parametrize("sort", SORT_KEYS)
def test_the_runs_are_in_the_order_that_was_asked_for(sort: str, folder: Path) -> None:
    names = [run.path.name for run in list_runs(folder, sort) if run.status != "broken"]
    assert names == (["b", "a"] if sort in ("date", "loss") else ["a", "b"])


def test_a_size_counts_a_file_with_two_names_once_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    (tmp_path / "in" / "one").write_bytes(bytes(1000))
    os.link(tmp_path / "in" / "one", tmp_path / "in" / "two")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "large")
    assert 1000 <= measure_size(tmp_path / "in") < 2000


def test_pruning_deletes_the_checkpoints_of_finished_runs_only(folder: Path) -> None:
    RunDirectory(folder / "b").write_info(
        dataclasses.replace(RunDirectory(folder / "b").read_info(), status="interrupted")
    )
    before = measure_size(folder / "a")
    assert prune_run(folder / "a") == before - measure_size(folder / "a") > 0
    assert not (folder / "a" / "checkpoints").exists()
    assert prune_run(folder / "b") == prune_run(folder / "bro\x1bken") == 0
    assert (folder / "b" / "checkpoints").exists()
    assert minigpt.load(folder / "a").generate("the", max_new_tokens=5, seed=0).startswith("the")
    with pytest.raises(RunError, match="checkpoint"):
        resume(folder / "a", max_iters=99)


@pytest.mark.parametrize("name", ["link", "no-run", "file", "missing", "."])
def test_what_is_no_run_is_not_deleted(name: str, folder: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run|is a link"):
        delete_run(folder / name)
    assert (folder / "no-run" / "letter.txt").read_text() == "dear"
    assert (folder / "a").is_dir()


def test_a_run_that_is_being_trained_is_not_deleted(folder: Path) -> None:
    with RunDirectory(folder / "a").lock():
        script = f"from minigpt.runs.run_listing import *; delete_run(Path({str(folder / 'a')!r}))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "a process is training" in done.stderr
    assert (folder / "a" / "model.safetensors").is_file()


def test_what_links_in_a_run_lead_to_is_not_deleted(folder: Path) -> None:
    (folder / "a" / "look").symlink_to(folder / "no-run")
    (folder / "a" / "checkpoints").rename(folder / "elsewhere")
    (folder / "a" / "checkpoints").symlink_to(folder / "elsewhere")
    assert prune_run(folder / "a") == 0
    delete_run(folder / "a")
    assert not (folder / "a").exists()
    assert (folder / "no-run" / "letter.txt").read_text() == "dear"
    assert any((folder / "elsewhere").iterdir())
    assert not list(folder.glob(".*"))


def test_the_command_prints_a_table_and_json(folder: Path, command: Callable, tmp_path: Path) -> None:
    done = command("runs", "--sort", "loss")
    assert done.returncode == 0, done.stderr
    header, *rows, total = done.stdout.splitlines()
    assert header.split() == ["run", "started", "preset", "bits/byte", "size", "status"]
    assert rows[0].split()[:5] == ["b", "2026-01-01", "10:00", "lecture", "3.0000"]
    assert "\x1b" not in done.stdout
    assert total.startswith("3 runs, ")
    assert "run.json" in done.stderr
    shown = json.loads(command("runs", "--json").stdout)
    assert [run["path"] for run in shown["runs"]][1:] == ["runs/b", "runs/a"]
    (tmp_path / "empty").mkdir()
    assert "no run in 'empty' yet" in command("runs", "empty").stdout
    assert command("runs", "nothing").returncode == 2


def test_the_command_deletes_after_a_yes_only(folder: Path, command: Callable, tmp_path: Path) -> None:
    refused = command("runs", "--delete", "runs/a")
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    assert (folder / "a").exists()
    done = command("runs", "--delete", "runs/a", "--yes")
    assert (done.returncode, "deleted runs/a" in done.stderr) == (0, True)
    assert not (folder / "a").exists()
    assert command("runs", "--delete", "runs/b", "--delete", "runs/no-run", "--yes").returncode == 2
    assert (folder / "b").exists()  # nothing is deleted if one name is wrong
    assert command("runs", "--prune", "--yes").returncode == 0
    assert not (folder / "b" / "checkpoints").exists()


def test_a_list_of_runs_needs_no_pytorch(tmp_path: Path) -> None:
    script = "import sys; from minigpt.cli.main import run; run(['runs']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True).returncode == 0

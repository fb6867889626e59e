"""Run folders: names, weights kept, and every way a file can be broken."""

import concurrent.futures
import json
import math
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_injection
import pytest
import safetensors.torch
import torch

import minigpt
from minigpt.config import Config
from minigpt.data.dataset import Dataset
from minigpt.errors import DivergedError, FileError, RunError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory, find_newest_run
from minigpt.runs.run_info import FORMAT
from minigpt.training.train import train


def test_a_name_already_taken_gets_a_number(tmp_path: Path) -> None:
    wanted = tmp_path / "runs" / "mine"
    wanted.mkdir(parents=True)
    assert RunDirectory.create(wanted).path == wanted  # empty: nobody's yet
    assert RunDirectory.create(wanted).path.name == "mine-2"
    assert RunDirectory.create(wanted).path.name == "mine-3"
    wanted.with_name("mine-4").touch()
    assert RunDirectory.create(wanted).path.name == "mine-5"


def test_a_name_that_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert RunDirectory.create(Path()).path == Path()
    with pytest.raises(RunError, match=r"the directory '.' is not empty: name a new one"):
        RunDirectory.create(Path())
    with pytest.raises(RunError, match=r"the directory '..' is not empty"):
        RunDirectory.create(Path(".."))
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent" / "absent")
    with pytest.raises(FileError, match="cannot create the run directory"):
        RunDirectory.create(tmp_path / "nowhere" / "run")
    with pytest.raises(RunError, match="not UTF-8"):
        RunDirectory.create(tmp_path / "\udcff")


def test_of_two_at_once_each_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    for attempt in range(40):
        barrier = threading.Barrier(4)

        def create(attempt: int = attempt, barrier: threading.Barrier = barrier) -> Path:
            barrier.wait()
            return RunDirectory.create(tmp_path / f"run {attempt}").path

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            paths = [job.result() for job in [pool.submit(create) for _ in range(4)]]
        assert len(set(paths)) == 4


def test_overwriting_waits_until_there_is_something_better(text_file: Path, tmp_path: Path) -> None:
    config = Config.from_preset("bigram").override(max_iters=20)
    out = tmp_path / "run"
    old = train(config, text_file, out)
    (out / "notes.txt").write_text("the user's own")
    (out / ".model.safetensors.1.tmp").touch()
    weights = (out / "model.safetensors").read_bytes()
    with pytest.raises(DivergedError):
        train(config.override(learning_rate=1e30), text_file, out, overwrite=True)
    assert (out / "model.safetensors").read_bytes() == weights
    assert minigpt.load(out).info == old.info
    shutil.rmtree(tmp_path / "run-2")
    new = train(config.override(seed=2), text_file, out, overwrite=True)
    assert new.path == out
    assert minigpt.load(out).config.training.seed == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert (out / "notes.txt").read_text() == "the user's own"
    assert not (out / ".model.safetensors.1.tmp").exists()


def test_a_run_stays_where_the_one_to_overwrite_it_is_stopped(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    config = Config.from_preset("bigram").override(max_iters=20)
    old = train(config, text_file, tmp_path / "run")
    weights = (old.path / "model.safetensors").read_bytes()
    get_batch, batches = Dataset.get_batch, []

    def interrupted(*arguments: Any) -> Any:
        batches.append(arguments)
        if len(batches) == 10:
            signal.raise_signal(signal.SIGINT)
        return get_batch(*arguments)

    monkeypatch.setattr(Dataset, "get_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config.override(seed=2), text_file, old.path, overwrite=True)
    assert (old.path / "model.safetensors").read_bytes() == weights
    assert minigpt.load(old.path).info == old.info
    assert minigpt.load(tmp_path / "run-2").info.status == "interrupted"
    said = capfd.readouterr().err
    assert f"saved in {tmp_path / 'run-2'}: " in said
    assert f"{old.path} stays as it is" in said
    assert f"minigpt.resume('{tmp_path / 'run-2'}')" in said


def test_what_is_not_a_run_is_never_overwritten(text_file: Path, tmp_path: Path) -> None:
    config = Config.from_preset("bigram").override(max_iters=1)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("the user's own")
    (tmp_path / "file").touch()
    for name in ("precious", "file"):
        with pytest.raises(RunError, match="not a run, so it is not overwritten"):
            train(config, text_file, tmp_path / name, overwrite=True)
    assert train(config, text_file, tmp_path / "new", overwrite=True).path == tmp_path / "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new", "precious"]


def change_json(name: str, **changes: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        content = json.loads((run / name).read_text()) | changes
        (run / name).write_text(json.dumps({key: value for key, value in content.items() if value != "drop"}))

    return change


def write_infinite_seconds(run: Path) -> None:
    content = (run / "run.json").read_text()
    (run / "run.json").write_text(re.sub(r'"training_seconds": [0-9.e-]+', '"training_seconds": 1e999', content))
    assert json.loads((run / "run.json").read_text())["training_seconds"] == math.inf


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        content = (run / name).read_text()
        assert old in content
        (run / name).write_text(content.replace(old, new))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        weights = safetensors.torch.load_file(run / "model.safetensors")
        change(weights)
        safetensors.torch.save_file(weights, run / "model.safetensors")

    return apply


def truncate(name: str, keep: float) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * keep)])

    return change


def turn_into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_half(weights: dict[str, torch.Tensor]) -> None:
    weights.update({name: tensor.half() for name, tensor in weights.items()})


def transpose_head(weights: dict[str, torch.Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"].T.contiguous()


FILES = ["config.toml", "tokenizer.json", "run.json", "metrics.jsonl", "model.safetensors"]
BREAKAGES = (
    [(f"{name}, missing", name, lambda run, name=name: (run / name).unlink()) for name in FILES]
    + [(f"{name}, a folder", name, lambda run, name=name: turn_into_folder(run / name)) for name in FILES]
    + [(f"{name}, cut to {keep}", name, truncate(name, keep)) for name in FILES for keep in (0, 0.5, 0.97)]
    + [(f"{name}, not text", name, lambda run, name=name: (run / name).write_bytes(b"\xff\x00" * 50)) for name in FILES]
    + [
        ("a setting of a later version", "config.toml", replace("config.toml", "[model]", "[model]\nrope = true")),
        ("an impossible setting", "config.toml", replace("config.toml", "n_head = 2", "n_head = 3")),
        ("a size beyond all memory", "config.toml", replace("config.toml", "n_embd = 16", f"n_embd = {2**62}")),
        ("another shape", "model.safetensors", replace("config.toml", "n_embd = 16", "n_embd = 32")),
        ("more blocks", "model.safetensors", replace("config.toml", "n_layer = 2", "n_layer = 3")),
        ("another model", "model.safetensors", replace("config.toml", '"gpt"', '"bigram"')),
        ("another tokenizer", "tokenizer.json", change_json("tokenizer.json", characters=["a", "b"])),
        ("a later run.json", "run.json", change_json("run.json", format=FORMAT + 1)),
        ("a run.json short of a key", "run.json", change_json("run.json", parameters="drop")),
        ("a key too many", "run.json", change_json("run.json", surprise=1)),
        ("a wrong type", "run.json", change_json("run.json", parameters="many")),
        ("an unknown status", "run.json", change_json("run.json", status="great")),
        ("not a number", "run.json", replace("run.json", '"step": 60', '"step": NaN')),
        ("beyond all numbers", "run.json", write_infinite_seconds),
        ("a metric missing", "metrics.jsonl", replace("metrics.jsonl", '"step": 20, ', "")),
        ("weights of another type", "model.safetensors", change_weights(to_half)),
        ("a weight too many", "model.safetensors", change_weights(lambda w: w.update(stray=torch.zeros(1)))),
        ("a weight transposed", "model.safetensors", change_weights(transpose_head)),
        ("a weight not finite", "model.safetensors", change_weights(lambda w: w["ln_f.bias"].fill_(torch.inf))),
        ("a pickle", "model.safetensors", lambda run: torch.save({"a": torch.zeros(1)}, run / "model.safetensors")),
    ]
)


@pytest.mark.parametrize(("name", "change"), [pytest.param(*row[1:], id=row[0]) for row in BREAKAGES])
def test_a_broken_run_is_refused_and_the_file_named(name: str, change: Callable, trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    minigpt.load(run)
    change(run)
    with pytest.raises(RunError) as caught:
        minigpt.load(run)
    assert str(run / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_not_there_is_refused_with_the_nearest_name(trained: Run) -> None:
    with pytest.raises(RunError, match=r"there is no run '.*traned'; did you mean '.*trained'\?"):
        minigpt.load(trained.path.with_name("traned"))


def test_a_run_without_weights_is_passed_over_and_says_why(trained: Run, tmp_path: Path) -> None:
    for name in ("whole", "begun"):
        shutil.copytree(trained.path, tmp_path / name)
    change_json("run.json", status="unfinished", step=0)(tmp_path / "begun")
    (tmp_path / "begun" / "model.safetensors").unlink()
    assert find_newest_run(tmp_path).name == "whole"
    with pytest.raises(RunError, match="has no weights yet"):
        minigpt.load(tmp_path / "begun")


def test_the_newest_run_is_the_one_written_last(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run in .*minigpt train"):
        find_newest_run(tmp_path)
    for name in ("b", "a"):
        shutil.copytree(trained.path, tmp_path / name)
        (tmp_path / name / "run.json").write_text((trained.path / "run.json").read_text())
    assert find_newest_run(tmp_path).name == "a"


@pytest.mark.parametrize("name", ["config.toml", "tokenizer.json", "run.json", "metrics.jsonl", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(name: str, trained: Run, tmp_path: Path) -> None:
    run = shutil.copytree(trained.path, tmp_path / "run")
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(RunError, match=re.escape(str(run / name))):
        minigpt.load(run)


OF_A_RUN = ["adapter/adapter_config.json", "tasks.jsonl", "tasks.png", "look/attention.png", "bits.png"]
OF_THE_USER = ["notes.txt", "figures/mine.png"]


def make_two_runs(trained: Run, folder: Path) -> tuple[RunDirectory, RunDirectory]:
    """An old run with everything that commands add to it and with files of the user, and a new run."""
    old, new = (shutil.copytree(trained.path, folder / name) for name in ("run", "run-2"))
    for name in [*OF_A_RUN, *OF_THE_USER]:
        (old / name).parent.mkdir(exist_ok=True)
        (old / name).write_text(name)
    (new / "look").mkdir()
    (new / "look" / "new.png").write_text("new")
    write_seed(old, 1)
    write_seed(new, 2)
    return RunDirectory(old), RunDirectory(new)


def write_seed(run: Path, seed: int) -> None:
    directory = RunDirectory(run)
    directory.write_config(directory.read_config().override(seed=seed))


def test_a_run_that_takes_the_place_of_another_keeps_nothing_of_it_but_the_users_files(
    trained: Run, tmp_path: Path
) -> None:
    old, new = make_two_runs(trained, tmp_path)
    new.take_place_of(old)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert minigpt.load(old.path).config.training.seed == 2
    assert not [name for name in OF_A_RUN if (old.path / name).exists()]
    assert [(old.path / name).read_text() for name in OF_THE_USER] == OF_THE_USER
    assert [path.name for path in old.look.iterdir()] == ["new.png"]


def test_a_kill_while_a_run_takes_the_place_of_another_leaves_whole_runs(trained: Run, tmp_path: Path) -> None:
    operations = 5  # two directories move, then two entries of the user's, then the old run is deleted
    for at in range(1, operations + 1):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        make_two_runs(trained, folder)
        assert fault_injection.replacement().finish(folder, (at, "kill")) == -signal.SIGKILL, at
        seeds = {minigpt.load(path).config.training.seed for path in folder.iterdir() if (path / "run.json").exists()}
        assert seeds == ({1, 2} if at <= operations else {2})
        assert len([*folder.glob("*/notes.txt")]) == len([*folder.glob("*/figures/mine.png")]) == 1
    folder = tmp_path / "whole"
    folder.mkdir()
    make_two_runs(trained, folder)
    assert fault_injection.replacement().finish(folder) == 0


def test_a_run_whose_place_cannot_be_taken_stays(trained: Run, tmp_path: Path) -> None:
    old, new = make_two_runs(trained, tmp_path)
    shutil.rmtree(new.path)
    with pytest.raises(FileError, match="cannot replace the run"):
        new.take_place_of(old)
    assert minigpt.load(old.path).config.training.seed == 1
    assert (old.path / "look" / "attention.png").exists()

"""The path of the training text: recorded as it was given, and opened only where it is that text."""

import dataclasses
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import minigpt
from minigpt.data.text_format import UTF8
from minigpt.errors import DataError, FileError, InputError
from minigpt.runs.recorded_data import find_training_data
from minigpt.runs.run import Run
from minigpt.runs.run_info import RunInfo
from minigpt.training.resume import resume

QUICK = {"max_iters": 1, "eval_windows": 4, "snapshots": 0}


@pytest.fixture
def here(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a text."""
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text(text)
    return tmp_path


def test_a_relative_path_is_recorded_as_given_and_works_from_the_same_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = minigpt.train("bigram", data="my.txt", out="run", **QUICK)
    assert (run.info.data_paths, run.info.data_bytes) == (["my.txt"], Path("my.txt").stat().st_size)
    for file in Path("run").rglob("*"):
        assert file.is_dir() or str(here).encode() not in file.read_bytes(), file
    assert minigpt.load("run").evaluate().split == "validation split"
    assert resume("run", max_iters=2).info.data_paths == ["my.txt"]
    Path("other").mkdir()
    monkeypatch.chdir("other")
    with pytest.raises(FileError, match=r"no such file .*; it is the text of '../run': name that text with data=…"):
        minigpt.load("../run").evaluate()
    assert resume("../run", data="../my.txt", max_iters=3).info.data_paths == ["../my.txt"]


def test_a_text_from_a_pipe_is_asked_for(here: Path, text: str) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w") as writer, os.fdopen(ours):
        thread = threading.Thread(target=lambda: (writer.write(text), writer.close()))
        thread.start()
        run = minigpt.train("bigram", data=f"/dev/fd/{ours}", out="run", **QUICK)
        thread.join()
    assert run.info.data_bytes is None
    with pytest.raises(FileError, match=r"'/dev/fd/.*' was a pipe, .* and is the text of 'run': name that text with"):
        run.evaluate()
    assert run.evaluate("my.txt").split == "validation split"


@pytest.fixture
def info(here: Path, trained: Run) -> RunInfo:
    """The run.json of a run that was trained on my.txt."""
    return dataclasses.replace(trained.info, data_paths=["my.txt"])


def test_a_recorded_path_is_named_when_it_is_opened(info: RunInfo, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "minigpt"):
        assert find_training_data(Path("run"), info, None, UTF8).sha256 == info.data_sha256
        assert caplog.messages == ["reading 'my.txt', which 'run' names"]
        find_training_data(Path("run"), info, "my.txt", UTF8)
        assert len(caplog.messages) == 1  # the user knows what the user named


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "folder", "missing", "large", "prepared"])
def test_only_a_file_of_the_recorded_size_and_hash_is_opened(
    name: str, info: RunInfo, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo("pipe")  # opening it would wait forever
    Path("folder").mkdir()
    with Path("large").open("wb") as file:
        file.truncate(2**40)
    Path("prepared").mkdir()
    Path("prepared/data.json").write_text(" " * info.data_bytes)
    with caplog.at_level(logging.INFO, "minigpt"), pytest.raises(InputError, match="name that text with data=…"):
        find_training_data(Path("run"), dataclasses.replace(info, data_paths=[name]), None, UTF8)
    assert not caplog.messages or name == "prepared"


def test_a_file_of_the_same_size_and_another_content_is_refused(info: RunInfo) -> None:
    Path("my.txt").write_text("x" * info.data_bytes)
    with pytest.raises(DataError, match="is not the text that 'run' was trained on: name that text with data=…"):
        find_training_data(Path("run"), info, None, UTF8)


def test_a_command_names_the_recorded_path_on_standard_error(trained: Run, command: Callable) -> None:
    done = command("eval", trained.path, "--json")
    assert done.returncode == 0
    assert f"minigpt: reading {trained.info.data_paths[0]!r}, which {str(trained.path)!r} names\n" in done.stderr

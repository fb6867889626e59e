"""`minigpt data`: prepare and train; interruptions, full disks, wrong input."""

import functools
import json
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_process import CommandProcess, in_terminal, run_command
from conftest import TINY_FLAGS, make_text

from minigpt.data.prepared_data import PreparedData

STORIES = 400


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stories") / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": make_text(300, seed)}) + "\n" for seed in range(STORIES)))
    return path


@pytest.fixture(scope="module")
def prepared(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    assert run_command(["data", "prepare", stories, "--out", out], out.parent).returncode == 0
    return out


def refused(done: subprocess.CompletedProcess, *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("minigpt: ")
    for part in parts:
        assert part in said, said


def test_prepared_data_can_be_trained_on_evaluated_and_looked_into(
    command: Callable, prepared: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = command("train", "--data", prepared, "--out", run, "--order", "epochs", "--json", *TINY_FLAGS)
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert info["data_sha256"] == PreparedData(prepared).sha256
    assert info["data_position"] == 60 * 8
    assert info["documents"] is True
    assert info["data_characters"] == STORIES * 300
    measured = json.loads(command("eval", run, "--json").stdout)
    assert measured["validation_loss"] == pytest.approx(info["validation_loss"])
    assert measured["split"] == "validation split"
    assert measured["predictions"] == measured["possible_predictions"] == len(PreparedData(prepared).val) - 1
    assert command("sample", run, "--max-new-tokens", "20").returncode == 0
    assert command("look", run, "--only", "surprise", "--only", "curves").returncode == 0
    again = command("train", "--data", prepared, "--config", run / "config.toml", "--out", tmp_path / "again", "--json")
    assert json.loads(again.stdout)["validation_loss"] == pytest.approx(info["validation_loss"])
    moved = shutil.move(shutil.copytree(prepared, tmp_path / "copy"), tmp_path / "moved")
    assert json.loads(command("eval", run, "--data", moved, "--json").stdout)["split"] == "validation split"


def test_info_shows_what_was_prepared(command: Callable, prepared: Path) -> None:
    shown = json.loads(command("data", "info", prepared, "--json").stdout)
    data = PreparedData(prepared)
    assert (shown["train_tokens"], shown["validation_tokens"]) == (len(data.train), len(data.val))
    assert shown["documents"] == STORIES
    plain = command("data", "info", prepared).stdout
    assert f"{STORIES} documents" in plain
    assert "uint16" in plain


def test_a_full_disk_keeps_the_finished_shards(stories: Path, tmp_path: Path) -> None:
    limit_files = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (50_000, 50_000))
    done = run_command(["data", "prepare", stories, "--out", "out"], tmp_path, prepare=limit_files)
    refused(done, "cannot write to 'out'", "it would be larger than files may be here")
    assert not list((tmp_path / "out").glob(".*.tmp"))
    assert run_command(["data", "prepare", stories, "--out", "out"], tmp_path).returncode == 0
    assert PreparedData(tmp_path / "out").index.total("documents") == STORIES


def test_ctrl_c_stops_and_the_same_command_continues(stories: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    large.write_text(stories.read_text() * 80)  # enough for several processes to encode it
    wanted = ["data", "prepare", large, "--out", tmp_path / "out", "--tokenizer", "bpe", "--vocab-size", "300"]
    process = CommandProcess(wanted, tmp_path)
    while process.poll() is None and not (tmp_path / "out" / "data.json").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "stopped" in process.communicate()[1]
    assert process.returncode == 130
    assert run_command(wanted, tmp_path).returncode == 0


def test_wrong_input_is_refused_in_one_sentence(
    command: Callable, stories: Path, prepared: Path, tmp_path: Path
) -> None:
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    refused(command("data", "prepare", "latin.txt", "--out", "a"), "'latin.txt' is not UTF-8: byte 3 is 0xe9")
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{"txt": "y"}\n')
    refused(command("data", "prepare", "bad.jsonl", "--out", "b"), "'bad.jsonl', line 2, has no field 'text'")
    (tmp_path / "empty.txt").touch()
    refused(command("data", "prepare", "empty.txt", "--out", "c"), "'empty.txt' is empty")
    refused(command("data", "prepare", "*.nothing", "--out", "d"), "no file fits the pattern")
    small = ["--tokenizer", "bpe", "--vocab-size", "200"]
    refused(command("data", "prepare", stories, "--out", "e", *small), "at least, and 200 is fewer")
    refused(command("data", "prepare", stories, "--out", "f", "--vocab-size", "300"), "vocab_size is only for")
    (tmp_path / "false.model").write_bytes(b"\x0a\x03abc")
    refused(
        command("data", "prepare", stories, "--out", "g", "--tokenizer", "false.model"), "not a SentencePiece model"
    )
    (tmp_path / "file").touch()
    refused(command("data", "prepare", stories, "--out", "file"), "cannot write to 'file'")
    refused(command("data", "info", tmp_path), "data.json")
    refused(command("train", "--data", prepared, "--tokenizer", "bpe"), "cannot have the tokenizer bpe")
    refused(command("train", "--data", prepared, "--train-fraction", "0.5"), "cannot have the train_fraction of 0.5")
    refused(command("train", "--data", tmp_path), "is a folder", "minigpt data prepare")
    refused(command("ladder", "--data", prepared), "needs a text: name a file")


def test_a_second_tokenizer_for_the_same_folder_is_refused(
    command: Callable, stories: Path, prepared: Path, text_file: Path, trained: object, tmp_path: Path
) -> None:
    refused(command("eval", trained.path, "--data", prepared), "has another tokenizer than this run")
    other = ["--tokenizer", trained.path]
    refused(command("train", "--data", prepared, *other), "cannot have the tokenizer that was named")
    refused(command("data", "prepare", stories, "--out", "x", *other), "no token to put between documents")


def test_errors_replace_counts_what_is_not_utf8(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good text\xff\n\nmore\xfe text\n\n" + b"again and again\n\n" * 100)
    options = ["--errors", "replace", "--separator", r"\n\n", "--out", "out", "--train-fraction", "0.5"]
    done = command("data", "prepare", "a.txt", *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["replaced"] == 2
    assert json.loads(done.stdout)["documents"] == 102
    assert "2 places were not UTF-8 and became U+FFFD" in command("data", "info", "out").stdout


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        (r"\r\n\r\n", "\n\n"),
        (r"\n\n", "\r\n\r\n"),
        (r"\f", "\f"),
        (r"\x0c\u2029", "\f\u2029"),
        (r"\\n", r"\n"),
        (r"\d", r"\d"),
    ],
)
def test_escapes_in_a_separator_stand_for_their_characters(
    typed: str, written: str, command: Callable, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(written.join(f"story {n}" for n in range(60)), encoding="utf-8", newline="")
    done = command("data", "prepare", "a.txt", "--separator", typed, "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["documents"] == 60


def test_a_terminal_gets_a_progress_bar(stories: Path, tmp_path: Path) -> None:
    status, shown = in_terminal("data", "prepare", stories, "--out", tmp_path / "out", cwd=tmp_path)
    assert status == 0
    assert "encoding" in shown
    assert f"{STORIES} documents" in shown

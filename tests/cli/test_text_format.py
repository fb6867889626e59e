"""Texts from Windows: several files, another encoding and line ends, from training to evaluation and resuming."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt.data.prepared_data import PreparedData
from minigpt.runs.run import Run

VERSE = "海は歌う、\r\n風は鐘を鳴らす。\r\n"
QUICK = ["--preset", "bigram", "--max-iters", 1, "--eval-windows", 4, "--snapshots", 0]
FORMAT = ["--encoding", "cp932", "--newlines", "unix"]


@pytest.fixture
def verses(tmp_path: Path) -> list[str]:
    """Two files of Japanese text as Windows writes them; returns the flags that name them."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes((VERSE * 20).encode("cp932"))
    return ["--data", "a.txt", "--data", "b.txt"]


def test_a_text_of_windows_is_read_for_training_evaluation_and_resuming(
    command: Callable, verses: list[str], tmp_path: Path
) -> None:
    refused = command("train", *verses, *QUICK)
    assert refused.returncode == 2
    assert "'a.txt' is not UTF-8: byte 0 is 0x8a; name its encoding, such as --encoding cp1252" in refused.stderr
    done = command("train", *verses, *QUICK, *FORMAT, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "the 2 files from a.txt to b.txt: 600 characters, 13 different" in done.stderr
    described = json.loads(done.stdout)
    assert described["data_paths"] == ["a.txt", "b.txt"]
    own = json.loads(command("eval", "run", "--json").stdout)
    assert own["validation_loss"] == pytest.approx(described["validation_loss"])
    named = command("eval", "run", *verses, "--json")  # the run knows how to read it
    assert json.loads(named.stdout)["split"] == "validation split"
    (tmp_path / "c.txt").write_text(VERSE * 20, encoding="utf-8", newline="")
    other = json.loads(command("eval", "run", "--data", "c.txt", "--encoding", "utf-8", "--json").stdout)
    assert (other["split"], other["characters"]) == ("whole text", 300)
    assert command("train", "--resume", "run", "--max-iters", 2).returncode == 0
    (tmp_path / "b.txt").write_bytes(b"")
    changed = command("train", "--resume", "run", "--max-iters", 3)
    assert changed.returncode == 2
    assert "'a.txt' and 1 more is not the text that 'run' was trained on" in changed.stderr


def test_line_ends_of_windows_are_named_with_the_flag(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(VERSE.encode() * 20)
    done = command("train", "--data", "a.txt", *QUICK, "--out", "run")
    assert "'a.txt' has 40 line ends of Windows (\\r\\n), which are kept: --newlines unix reads" in done.stderr
    done = command("data", "prepare", "a.txt", "--out", "data")
    assert "1 files have line ends of Windows (\\r\\n), which are kept: --newlines unix and a new --out" in done.stderr


def test_json_is_refused_for_training(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "sea"}\n' * 200)
    done = command("train", "--data", "a.jsonl", *QUICK)
    assert done.returncode == 2
    assert "minigpt finetune RUN --data a.jsonl" in done.stderr
    assert "minigpt data prepare a.jsonl --field NAME --out data" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_data_prepare_reads_texts_of_windows_and_an_array_of_json(
    command: Callable, verses: list[str], tmp_path: Path
) -> None:
    done = command("data", "prepare", "a.txt", "b.txt", "--separator", r"\n", "--out", "data", *FORMAT)
    assert done.returncode == 0, done.stderr
    assert set(PreparedData(tmp_path / "data").tokenizer.stoi) >= set("海は")
    assert "\r" not in PreparedData(tmp_path / "data").tokenizer.stoi
    assert command("train", "--data", "data", *QUICK, *FORMAT, "--out", "run").returncode == 0
    refused = command("train", "--data", "data", *QUICK, "--encoding", "cp1252")
    assert refused.returncode == 2
    assert "cannot have the encoding cp1252" in refused.stderr
    (tmp_path / "rows.json").write_text(json.dumps([{"output": VERSE}, {"output": "sea"}]))
    done = command("data", "prepare", "rows.json", "--field", "output", "--newlines", "unix", "--out", "rows")
    assert done.returncode == 0, done.stderr
    assert set(PreparedData(tmp_path / "rows").tokenizer.stoi) - {"<|endoftext|>"} == {*VERSE, *"sea"} - {"\r"}


def test_a_fine_tuning_takes_several_files_in_another_encoding(
    command: Callable, trained: Run, text: str, tmp_path: Path
) -> None:
    shutil.copytree(trained.path, tmp_path / "base")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(text[:2000].encode("utf-16"))
    flags = ["--data", "a.txt", "--data", "b.txt", "--encoding", "utf-16", "--out", "new", "--max-iters", 1]
    done = command("finetune", "base", *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data_paths"] == ["a.txt", "b.txt"]
    assert command("eval", "new").returncode == 0
    assert command("finetune", "--resume", "new", "--max-iters", 2).returncode == 0


def test_a_tokenizer_learns_from_a_text_in_another_encoding(
    command: Callable, verses: list[str], tmp_path: Path
) -> None:
    done = command("tokenizer", "train", "--kind", "char", *verses, *FORMAT, "--out", "t.json", "--json")
    assert json.loads(done.stdout)["vocab_size"] == 13

"""Errors on the command line: one sentence, exit status 2, no traceback, nothing half-written."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_process import obey_file_modes, run_command
from conftest import TINY_FLAGS

from minigpt.runs.run import Run
from minigpt.runs.run_info import FORMAT


def refused(done: subprocess.CompletedProcess, *parts: str, status: int = 2) -> None:
    """The last line is one sentence that has these parts; nothing on standard output, no traceback."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("minigpt: ")
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty"]),
        (b"a" * 5000, ["one distinct character"]),
        (b"some text" * 50 + b"\x00\x01", ["binary", "byte 450"]),
        ("über".encode("latin-1") * 50, ["not UTF-8", "byte 0 is 0xfc"]),
        (b"ab" * 20, ["validation split has 4 tokens", "at least 17"]),
        (None, ["no such file", "text.txt"]),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_and_leaves_no_run(
    content: bytes | None, parts: list, command: Callable, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    refused(command("train", "--data", "text.txt", *TINY_FLAGS), *parts)
    assert not (tmp_path / "runs").exists()


def test_a_folder_instead_of_a_file_and_a_file_instead_of_a_folder_are_refused(
    command: Callable, text_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    refused(command("train", "--data", "."), "is a folder", "minigpt data prepare")
    refused(command("train", "--data", text_file, "--out", "file/run"), "'file/run'", "is in the way")
    refused(command("sample", "file"), "there is no run 'file'")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--batch-siz", "3"], ["--batch-siz", "--batch-size"]),
        (["--batch_size", "3"], ["--batch_size", "--batch-size"]),
        (["--batch-size", "three"], ["--batch-size", "three"]),
        (["--batch-size", "0"], ["batch_size must be a whole number at least 1, not 0"]),
        (["--n-head", "3"], ["n_embd must be divisible by n_head"]),
        (["--dropout", "1"], ["dropout", "below 1"]),
        (["--learning-rate", "nan"], ["learning_rate", "nan"]),
        (["--preset", "lectur"], ["no preset 'lectur'", "did you mean 'lecture'"]),
        (["--config", "absent.toml"], ["absent.toml", "no such file"]),
        (["--config", "bad.toml"], ["bad.toml", "did you mean 'n_layer'"]),
        (["--config", "bigram.toml", "--preset", "lecture"], ["bigram.toml", "'bigram'", "'lecture'", "name one"]),
        (["--device", "tpu"], ["--device", "tpu"]),
        (["--block-size", "100000"], ["100,001", "use a longer text or a smaller block_size"]),
        (["surplus"], ["surplus"]),
    ],
)
def test_a_wrong_flag_of_train_is_refused_in_one_sentence(
    flags: list, parts: list, command: Callable, text_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text("n_layers = 3")
    (tmp_path / "bigram.toml").write_text('preset = "bigram"')
    refused(command("train", "--data", text_file, *flags), *parts)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--prompt", "Ünknown"], ["'Ü' (U+00DC) at position 0", "train on a text that has it"]),
        (["--temperature", "-1"], ["temperature must be a number at least 0, not -1.0"]),
        (["--temperature", "nan"], ["temperature"]),
        (["--top-k", "0"], ["top_k must be a whole number at least 1, not 0"]),
        (["--top-p", "2"], ["top_p must be a number above 0 and at most 1, not 2.0"]),
        (["--top-p", "0"], ["top_p"]),
        (["--max-new-tokens", "0"], ["max_new_tokens must be a whole number at least 1, not 0"]),
        (["--num-samples", "0"], ["num_samples must be a whole number at least 1, not 0"]),
        (["--weights", "worst"], ["--weights", "worst"]),
        (["--topk", "3"], ["--topk", "--top-k"]),
    ],
)
def test_a_wrong_flag_of_sample_is_refused_in_one_sentence(
    flags: list, parts: list, command: Callable, trained: Run
) -> None:
    refused(command("sample", trained.path, *flags), *parts)


def test_a_missing_device_is_refused(command: Callable, text_file: Path, trained: Run) -> None:
    absent = "mps" if sys.platform != "darwin" else "cuda"
    refused(command("train", "--data", text_file, "--device", absent), f"'{absent}' is not available", "cpu")
    refused(command("sample", trained.path, "--device", absent), f"'{absent}' is not available")


def test_a_prompt_that_is_not_text_or_too_long_is_refused(command: Callable, trained: Run) -> None:
    done = command("sample", trained.path, input=b"caf\xe9")
    assert done.returncode == 2
    assert "standard input is not UTF-8: byte 3 is 0xe9" in done.stderr
    refused(command("sample", trained.path, input="a" * (2**20 + 1)), "standard input is larger than 1,048,576 bytes")


@pytest.mark.parametrize("name", ["config.toml", "tokenizer.json", "run.json", "metrics.jsonl", "model.safetensors"])
def test_a_truncated_file_of_a_run_is_named(name: str, command: Callable, trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 3])
    refused(command("sample", run), name)


@pytest.mark.parametrize(
    ("name", "old", "new", "parts"),
    [
        ("run.json", f'"format": {FORMAT}', '"format": 99', [f"has format 99, but this version reads {FORMAT}"]),
        ("config.toml", "[model]", "[model]\nrotary = true", ["config.toml", "another version", "'rotary'"]),
        ("config.toml", "n_embd = 16", "n_embd = 32", ["model.safetensors' does not fit config.toml", "shape"]),
    ],
)
def test_a_run_of_another_version_or_shape_is_refused(
    name: str, old: str, new: str, parts: list, command: Callable, trained: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (run / name).write_text((run / name).read_text().replace(old, new))
    refused(command("sample", run), *parts)


@pytest.mark.parametrize("subcommand", ["sample", "info", "eval"])
def test_a_missing_file_of_a_run_is_named(subcommand: str, command: Callable, trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (run / "model.safetensors").unlink()
    refused(command(subcommand, run), "model.safetensors' is missing")


def test_a_missing_run_is_refused(command: Callable) -> None:
    refused(command("sample"), "no run", "minigpt train")
    refused(command("info", "runs/none"), "there is no run 'runs/none'")


def test_a_text_with_unknown_characters_cannot_be_evaluated(command: Callable, trained: Run, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("The sea — é")
    refused(command("eval", trained.path, "--data", "other.txt"), "U+2014", "position 8")
    (tmp_path / "other.txt").write_text("T")
    refused(command("eval", trained.path, "--data", "other.txt"), "at least 2")


def test_a_folder_that_is_not_a_run_is_never_overwritten(command: Callable, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    refused(command("train", "--data", text_file, "--out", "precious", "--overwrite"), "'precious' is not a run")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_an_unreadable_file_and_an_unwritable_folder_are_refused(tmp_path: Path, text: str) -> None:
    def call(*arguments: object) -> subprocess.CompletedProcess:
        return run_command(arguments, theirs, prepare=obey_file_modes)

    theirs, secret, readable, closed = (tmp_path / name for name in ("theirs", "secret.txt", "readable.txt", "closed"))
    theirs.mkdir()
    for file in (secret, readable):
        file.write_text(text)
    secret.chmod(0)
    closed.mkdir(mode=0o555)
    refused(call("train", "--data", secret), "cannot read", "secret.txt", "permission denied")
    refused(call("train", "--data", readable, "--out", closed / "run"), "closed/run", "permission denied")
    closed.chmod(0)
    refused(call("sample", closed / "run"), "closed/run")
    assert list(theirs.iterdir()) == []
    closed.chmod(0o755)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, which takes a mount and so root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; test_files.py fills one up by a limit on file size")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_reported_in_one_sentence(command: Callable, text_file: Path, small_disk: Path) -> None:
    flags = ["--data", text_file, "--out", small_disk / "run", *TINY_FLAGS]
    done = command("train", *flags, "--n-embd", "64", "--snapshots", "3")
    refused(done, "cannot write", "the disk is full")
    left = {file.name for file in (small_disk / "run").iterdir()}
    texts = {"config.toml", "tokenizer.json", "run.json", "metrics.jsonl", "snapshots.jsonl", "samples.txt", ".lock"}
    assert left == texts | {"checkpoints"}
    assert not list((small_disk / "run" / "checkpoints").glob("*/checkpoint.json"))  # no marker: no checkpoint
    refused(command("sample", small_disk / "run"), "has no weights yet")

"""What a training prints to a pipe and to a terminal."""

import functools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_process import CommandProcess, close_streams, in_terminal
from conftest import TINY_FLAGS

import minigpt
from minigpt.training.stopwatch import format_duration


def test_a_pipe_gets_plain_lines(command: Callable, text_file: Path) -> None:
    done = command("train", "--data", text_file, *TINY_FLAGS, "--snapshots", 4)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    rows = re.findall(r"^ +(\d+)  +\d\.\d{4}  +\d\.\d{4}", done.stderr, re.M)
    assert rows == ["0", "1", "8", "20", "40", "60"]  # every 20 steps, and where the model writes
    assert done.stderr.count("“") == 4
    assert "runs/lecture" in done.stdout


def test_a_terminal_gets_a_progress_bar(text_file: Path, tmp_path: Path) -> None:
    status, text = in_terminal("train", "--data", text_file, *TINY_FLAGS, "--max-iters", "200", cwd=tmp_path)
    assert status == 0
    bars = re.findall(r"([\d,.]+) it/s · ([\d,]+) characters/s", text)
    assert bars
    for steps, characters in bars:  # a step is 8 windows of 16 characters
        steps, characters = (float(number.replace(",", "")) for number in (steps, characters))
        assert characters == pytest.approx(steps * 8 * 16, rel=0.05)
    assert "characters/s" in text
    assert "200/200" in text
    assert "\x1b[?25h" in text  # the cursor is given back


@pytest.mark.parametrize("lost", ["closed", "full", "pipe"])
def test_a_training_does_not_need_its_outputs(lost: str, text_file: Path, tmp_path: Path) -> None:
    words = f"train --data {text_file} --preset bigram --max-iters 8 --eval-interval 2 --out run".split()
    words += ["--eval-windows", "4"]
    if lost == "closed":  # before the program starts
        close = functools.partial(close_streams, "stderr")
        assert CommandProcess(words, tmp_path, stdout=subprocess.DEVNULL, prepare=close).wait() == 0
    elif lost == "full":
        with Path("/dev/full").open("w") as full:
            process = CommandProcess(words, tmp_path, stdout=subprocess.DEVNULL, stderr=full)
        assert process.wait() == 0
    else:
        process = CommandProcess(words, tmp_path, stdout=subprocess.DEVNULL)
        process.stderr.readline()
        process.stderr.close()
        assert process.wait() == 0
    assert minigpt.load(tmp_path / "run").info.status == "finished"


def test_an_unknown_matplotlib_backend_does_not_stop_a_training(
    command: Callable, text_file: Path, tmp_path: Path
) -> None:
    flags = f"--data {text_file} --preset bigram --max-iters 2 --eval-interval 1 --eval-windows 4 --json".split()
    done = command("train", *flags, env={"MPLBACKEND": "module://absent.backend"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "bigram" / "loss.png").exists()


def test_a_duration_is_minutes_and_seconds() -> None:
    assert [format_duration(s) for s in (0, 59.4, 59.6, 3599.6, 3725)] == ["0:00", "0:59", "1:00", "1:00:00", "1:02:05"]

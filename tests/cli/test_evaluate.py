"""`minigpt eval` shows its progress on a terminal only, and Ctrl-C prints the loss so far."""

import os
import pty
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_process import CommandProcess, in_terminal
from conftest import make_text

from minigpt.runs.run import Run


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.txt"
    path.write_text(make_text(20_000, seed=5))
    return path


def test_a_terminal_shows_the_progress(trained: Run, other: Path, tmp_path: Path) -> None:
    status, shown = in_terminal("eval", trained.path, "--data", other, cwd=tmp_path)
    assert status == 0
    assert re.search(r"of 19,999 predictions · loss \d\.\d{4}", shown)
    assert "nats per character (exact; " in shown


def test_a_pipe_and_json_show_none(trained: Run, other: Path, tmp_path: Path, command: Callable) -> None:
    done = command("eval", trained.path, "--data", other)
    assert (done.returncode, done.stderr) == (0, "")
    assert "predictions" not in done.stdout
    status, shown = in_terminal("eval", trained.path, "--data", other, "--json", cwd=tmp_path)
    assert status == 0
    assert shown.lstrip().startswith("{")
    assert "· loss" not in shown


def test_ctrl_c_prints_the_loss_of_what_is_measured_so_far(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text(make_text(20_000, seed=5) * 300)  # takes far longer than the signal
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = CommandProcess(("eval", trained.path, "--data", "large.txt"), tmp_path, environment, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"predictions" not in shown:
        shown += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    os.close(ours)
    assert process.returncode == 130
    found = re.search(r"loss (\d\.\d{4}) nats .*exact on ([\d,]+) of 5,999,999 tokens, evenly spread", printed)
    assert found
    assert 0 < int(found[2].replace(",", "")) < 5_999_999
    assert float(found[1]) == pytest.approx(
        trained.evaluate(tmp_path / "large.txt", max_predictions=20_000).loss, abs=0.05
    )

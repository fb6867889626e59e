"""Real signals to a real training process."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_process import COMMAND, CommandProcess
from conftest import TINY_FLAGS

import minigpt
from minigpt.runs.run import Run


def start(text_file: Path, folder: Path, *flags: str, is_forked: bool = True) -> Any:
    """A training, returned once it has shown the evaluation at step 40."""
    words = ["train", *TINY_FLAGS, "--snapshots", "0", "--max-iters", "1000000", "--out", "run", "--data", text_file]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if is_forked:
        process: Any = CommandProcess([*words, *flags], folder, **pipes)
    else:
        process = subprocess.Popen([COMMAND, *words, *flags], cwd=folder, text=True, **pipes)
    for line in process.stderr:
        if line.split()[:1] == ["40"]:
            break
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_ends_the_training_with_an_evaluation_and_a_checkpoint(
    number: int, status: int, text_file: Path, tmp_path: Path
) -> None:
    process = start(text_file, tmp_path)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == status
    assert "stopping: evaluating and saving" in messages
    assert re.search(r"saved in run: \d+ steps, validation loss \d", messages)
    assert "Traceback" not in messages
    run = minigpt.load(tmp_path / "run")
    assert run.info.status == "interrupted"
    assert run.info.step >= run.metrics[-1].step >= 40
    assert run.evaluate().loss == pytest.approx(run.info.validation_loss, rel=1e-6)
    assert (run.path / "loss.png").exists()


def test_a_signal_during_the_last_evaluation_does_not_lose_it(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(text_file.read_text() * 30)
    flags = ["--max-iters", "40", "--train-fraction", "0.02"]
    process = start(tmp_path / "long.txt", tmp_path, *flags)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved in run: 40 steps" in messages
    run = minigpt.load(tmp_path / "run")
    assert run.info.status == "finished"
    assert run.info.validation_loss > 0


def test_a_second_signal_stops_at_once_and_loses_nothing_saved(text_file: Path, tmp_path: Path) -> None:
    process = start(text_file, tmp_path, is_forked=False)  # how Python itself ends matters here
    while process.poll() is None:  # again and again, as one does
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 130
    assert "Traceback" not in process.stderr.read()
    run = minigpt.load(tmp_path / "run")
    assert run.info.status in ("interrupted", "unfinished")
    assert not [file for file in run.path.iterdir() if file.name.endswith(".tmp")]


def test_two_sigterms_in_quick_succession_count_as_one(text_file: Path, tmp_path: Path) -> None:
    process = start(text_file, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # to the process, and by its launcher
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "saved in run" in messages
    assert minigpt.load(tmp_path / "run").info.status == "interrupted"


def test_a_killed_run_is_whole_up_to_its_last_evaluation(text_file: Path, tmp_path: Path) -> None:
    process = start(text_file, tmp_path)
    process.kill()
    process.communicate()
    run = minigpt.load(tmp_path / "run")
    assert run.info.status == "unfinished"
    assert len(run.generate(max_new_tokens=10)) == 10


def test_a_signal_that_the_caller_ignores_stays_ignored(text_file: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        minigpt.train("bigram", data=text_file, out=tmp_path / "run", max_iters=2, eval_windows=4)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_signal_handlers_are_restored_after_training(text_file: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert isinstance(minigpt.train("bigram", data=text_file, out=tmp_path / "run", max_iters=2, eval_windows=4), Run)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

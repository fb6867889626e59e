"""A training beside other programs says once that one thread may be faster."""

from pathlib import Path

import pytest
import torch
from conftest import TINY

import minigpt
from minigpt.config import Config
from minigpt.training.busy_machine_hint import BusyMachineHint
from minigpt.training.display import Display
from minigpt.training.resume import resume
from minigpt.training.train import train


@pytest.mark.parametrize(("threads", "waiting", "count"), [(2, 1000.0, 1), (2, 0.0, 0), (1, 1000.0, 0)])
def test_the_hint_comes_once_if_threads_wait_for_a_cpu(
    threads: int, waiting: float, count: int, text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config, calls = Config().override(**TINY | {"max_iters": 4, "eval_interval": 1}), iter(range(100))
    hint = BusyMachineHint(Display(config.training), threads, lambda: waiting * next(calls))
    train(config, text_file, tmp_path / "run", callbacks=[hint])
    assert capfd.readouterr().err.count("instead of 2 threads, threads=1 may be faster") == count


def test_a_resumed_run_keeps_its_number_of_threads(text_file: Path, tmp_path: Path) -> None:
    run = minigpt.train(data=text_file, out=tmp_path / "run", **TINY | {"max_iters": 2, "threads": 3})
    assert (run.info.threads, run.config.training.threads) == (3, 3)
    before = torch.get_num_threads()
    assert resume(run.path, max_iters=3).info.threads == 3
    assert resume(run.path, max_iters=4, threads=2).info.threads == 2
    assert torch.get_num_threads() == before
    chosen = minigpt.train(data=text_file, out=tmp_path / "chosen", **TINY | {"max_iters": 2})
    assert chosen.config.training.threads == chosen.info.threads == 1

"""`minigpt plan`: its table, its JSON, and how it refuses wrong flags."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from minigpt.cli.main import cli
from minigpt.cli.plan import _format_hours, format_amount
from minigpt.config import Config
from minigpt.training.planning.machine import Machine
from minigpt.training.planning.plan import plan

FLAGS = ["--n-embd", 128, "--batch-size", 32, "--precision", "bf16"]
CONFIG = Config().override(n_embd=128, batch_size=32, precision="bf16")


def run_plan(*flags: object) -> str:
    """Return what the command prints."""
    done = CliRunner().invoke(cli, ["plan", *map(str, flags)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_table_has_a_column_for_each_strategy_and_the_last_line_says_what_fits() -> None:
    lines = run_plan(*FLAGS, "--gpus", 4, "--memory", 0.02).splitlines()
    assert lines[0] == "parameters  812,609: 791,552 in 4 blocks, 21,057 outside"
    header, memory = (next(line for line in lines if line.startswith(word)) for word in ("on each GPU", "memory"))
    assert header.split() == ["on", "each", "GPU", "DDP", "DDP,", "recomputed", "FSDP", "FSDP,", "recomputed"]
    planned = plan(CONFIG, Machine(gpus=4))
    totals = [strategy.memory.total for strategy in planned.strategies]
    assert memory.split()[1:] == [word for total in totals for word in format_amount(total, "B").split()]
    assert len({len(line) for line in lines[lines.index(header) : lines.index(memory) + 1]}) == 1
    fitting = [
        name
        for name, total in zip(("DDP", "DDP, recomputed", "FSDP", "FSDP, recomputed"), totals, strict=True)
        if total <= 0.02e9
    ]
    assert 0 < len(fitting) < 4
    assert lines[-1] == f"fits in 0.02 GB: {'; '.join(fitting)}"


def test_json_has_the_exact_numbers() -> None:
    shown = json.loads(run_plan(*FLAGS, "--json"))
    planned = plan(CONFIG, Machine())
    assert shown["parameters"] == 812_609
    assert shown["tokens"] == planned.tokens
    assert [s["memory"]["total"] for s in shown["strategies"]] == [s.memory.total for s in planned.strategies]


def test_settings_come_from_a_file_and_a_plan_that_does_not_fit_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("n_embd = 128\nbatch_size = 32\nprecision = 'bf16'\n")
    shown = run_plan("--config", tmp_path / "mine.toml", "--memory", 0.001)
    assert shown.startswith("parameters  812,609")
    assert "nothing fits in 0.001 GB: take more GPUs" in shown


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--gpus", "0"], "gpus must be a whole number at least 1, not 0"),
        (
            ["--gpus", "17"],
            "batch_size must be at least the number of GPUs, but 16 windows cannot be shared by 17 GPUs",
        ),
        (["--preset", "lectur"], "there is no preset 'lectur': choose from"),
        (["--flops", "nan"], "flops must be a number at least 1, not nan"),
        (["--memory", "-1"], "memory must be a number above 0, not -1.0"),
        (["--utilization", "40"], "utilization must be a number at least 0.01 and at most 1, not 40.0"),
        (["--n-head", "3"], "n_embd must be divisible by n_head"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_sentence(flags: list, sentence: str, command: Callable) -> None:
    done = command("plan", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 B"), (999, "999 B"), (999.6, "1.00 KB"), (12_345, "12.3 KB"), (124_439_808, "124 MB")]
)
def test_an_amount_has_three_digits_and_a_prefix(number: float, shown: str) -> None:
    assert format_amount(number, "B") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0168, "0.0168 s"), (99, "99 s"), (150, "2 min"), (12_345, "3 h 26 min"), (7e6, "1,944 h 27 min")],
)
def test_a_duration_is_in_seconds_minutes_or_hours(seconds: float, shown: str) -> None:
    assert _format_hours(seconds) == shown

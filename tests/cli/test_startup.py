"""A command imports only what it needs, so that it starts at once."""

import subprocess
import sys
from pathlib import Path

from conftest import TINY_FLAGS

from minigpt.runs.run import Run


def list_modules(*commands: list[object], cwd: Path) -> list[set[str]]:
    """Run commands one after another in a new process, and return the modules that it has imported after each."""
    script = f"""
import sys
from minigpt.cli.main import run
for arguments in {[[*map(str, words)] for words in commands]!r}:
    assert run(arguments) == 0
    print("modules", *sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stderr.splitlines() if line.startswith("modules ")]


HEAVY = {"torch", "numpy", "numba", "matplotlib", "rich", "pooch"}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    commands: list[list[object]] = [[command, "--help"] for command in ("train", "sample", "info", "eval")]
    assert not (HEAVY | {"safetensors"}) & list_modules(["-h"], *commands, cwd=tmp_path)[-1]


def test_info_and_runs_import_nothing_heavy(trained: Run, tmp_path: Path) -> None:
    commands: list[list[object]] = [["info", trained.path], ["info", trained.path, "--json"]]
    assert not HEAVY & list_modules(*commands, ["runs", trained.path.parent], cwd=tmp_path)[-1]


def test_a_short_training_and_a_text_import_no_compiler_and_no_plots(text_file: Path, tmp_path: Path) -> None:
    train = ["train", "--data", text_file, "--out", "run", *TINY_FLAGS, "--max-iters", 20]
    logged = [*train, "--log-to", "tensorboard"]
    [*_, modules, with_log] = list_modules(train, ["sample", "run", "--max-new-tokens", 500], logged, cwd=tmp_path)
    assert "torch" in modules
    assert not {"torch._dynamo", "sympy", "numba", "matplotlib", "tensorboard"} & modules
    assert "tensorboard" in with_log
    assert not {"torch._dynamo", "sympy", "numba", "matplotlib"} & with_log

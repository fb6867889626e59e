"""A command imports only what it needs, so that it starts at once."""

import subprocess
import sys
from pathlib import Path

from conftest import TINY_FLAGS

from minigpt.runs.run import Run


def list_modules(*commands: list[object], cwd: Path) -> set[str]:
    """Run commands one after another in a new process, and return the names of the modules that it imported."""
    script = f"""
import sys
from minigpt.cli.main import run
for arguments in {[[*map(str, words)] for words in commands]!r}:
    assert run(arguments) == 0
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {"torch", "numpy", "numba", "matplotlib", "rich", "pooch"}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    commands: list[list[object]] = [[command, "--help"] for command in ("train", "sample", "info", "eval")]
    assert not (HEAVY | {"safetensors"}) & list_modules(["-h"], *commands, cwd=tmp_path)


def test_info_and_runs_import_nothing_heavy(trained: Run, tmp_path: Path) -> None:
    commands: list[list[object]] = [["info", trained.path], ["info", trained.path, "--json"]]
    assert not HEAVY & list_modules(*commands, ["runs", trained.path.parent], cwd=tmp_path)


def test_a_training_and_a_sample_do_not_import_pytorchs_compiler(text_file: Path, tmp_path: Path) -> None:
    train = ["train", "--data", text_file, "--out", "run", *TINY_FLAGS, "--max-iters", 20]
    found = list_modules(train, ["sample", "run"], cwd=tmp_path)
    assert {"torch", "matplotlib"} <= found
    assert not {"torch._dynamo", "sympy"} & found


def test_a_short_first_text_does_not_wait_for_the_compiled_loops(trained: Run, tmp_path: Path) -> None:
    short: list[object] = ["sample", trained.path, "--max-new-tokens", 200]
    assert "numba" not in list_modules(short, cwd=tmp_path)

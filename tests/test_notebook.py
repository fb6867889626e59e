"""The notebook runs from top to bottom, its folded solutions included, and is committed executed."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

from minigpt.config import Config

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "mini_gpt.ipynb"
spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
assert spec
execute = importlib.util.module_from_spec(spec)
spec.loader.exec_module(execute)


def cells(kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == kind]


def test_it_runs_with_a_small_budget(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "input.txt").write_text(text)
    monkeypatch.setenv("MAX_ITERS", "8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside other tests
    executed = execute.execute(tmp_path, timeout=200)
    printed = "".join(o.get("text", "") for c in executed.cells if c.cell_type == "code" for o in c.outputs)
    assert "8 steps a rung" in printed
    assert "rung 10, + layer norm" in printed
    assert len(executed.cells) == len(nbformat.read(NOTEBOOK, as_version=4).cells)  # the solutions are folded again


def test_a_wrong_solution_would_end_it() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    solutions = [c for c in execute.with_solutions(notebook).cells if c.metadata.get("solution")]
    questions = [c for c in cells("markdown") if "**Exercise.**" in c.source]
    assert len(solutions) == len(questions) >= 8
    assert all("assert " in solution.source for solution in solutions)


def test_it_is_committed_executed_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 2 * 2**20
    for cell in cells("code"):
        assert cell.execution_count
        assert not any(output.output_type == "error" for output in cell.outputs)
    pictures = [o for c in cells("code") for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 8
    printed = "".join(o.get("text", "") for c in cells("code") for o in c.outputs)
    assert f"{Config().training.max_iters:,} steps a rung" in printed  # in full, not with a small budget
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", NOTEBOOK.read_text())


def test_its_settings_are_the_mission_s() -> None:
    (settings,) = (c.source for c in cells("code") if "batch_size = " in c.source)
    config = Config()
    for part in (config.model, config.training):
        for name, value in vars(part).items():
            if found := re.search(rf"^{name} = ([\d.e-]+)", settings, re.M):
                assert float(found[1]) == value, name
    assert f'"MAX_ITERS", {config.training.max_iters})' in settings

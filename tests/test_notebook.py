"""The notebook runs from top to bottom with its hidden solutions, and its outputs are committed."""

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


@pytest.mark.long
def test_the_notebook_runs_with_few_steps(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "input.txt").write_text(text[:8000])
    monkeypatch.setenv("MAX_ITERS", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests use the other cores
    executed = execute.execute(tmp_path, timeout=200)
    printed = "".join(o.get("text", "") for c in executed.cells if c.cell_type == "code" for o in c.outputs)
    assert "2 steps a rung" in printed
    assert "rung 10, + layer norm" in printed
    assert len(executed.cells) == len(nbformat.read(NOTEBOOK, as_version=4).cells)  # without the cells of the solutions


def test_each_exercise_has_a_solution_that_is_checked() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    solutions = [c for c in execute.add_solutions(notebook).cells if c.metadata.get("solution")]
    questions = sum(c.source.count("**Exercise.**") for c in cells("markdown"))
    assert len(solutions) == questions >= 8
    assert all("assert " in solution.source for solution in solutions)


def test_the_notebook_is_small_and_has_the_outputs_of_a_full_run() -> None:
    assert NOTEBOOK.stat().st_size < 2 * 2**20
    for cell in cells("code"):
        assert cell.execution_count
        assert not any(output.output_type == "error" for output in cell.outputs)
    pictures = [o for c in cells("code") for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 8
    printed = "".join(o.get("text", "") for c in cells("code") for o in c.outputs)
    assert f"{Config().training.max_iters:,} steps a rung" in printed
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", NOTEBOOK.read_text())


def test_the_notebooks_settings_are_the_lecture_presets() -> None:
    (settings,) = (c.source for c in cells("code") if "batch_size = " in c.source)
    config = Config()
    for part in (config.model, config.training):
        for name, value in vars(part).items():
            if found := re.search(rf"^{name} = ([\d.e-]+)", settings, re.M):
                assert float(found[1]) == value, name
    assert f'"MAX_ITERS", {config.training.max_iters})' in settings

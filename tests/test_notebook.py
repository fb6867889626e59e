"""The notebook runs from top to bottom with its hidden solutions, and its outputs are committed."""

import importlib.util
import re
import subprocess
import sys
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


def run_first_cell(folder: Path, repository: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the first cell where the package is missing, and return what it gives to pip."""
    first = cells("code")[0].source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    install = first.split("\nfrom minigpt")[0]
    calls: list[list[str]] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda words, check: calls.append(words))
    monkeypatch.chdir(folder)
    exec(install, {})
    (words,) = calls
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    return words[4:]


def test_the_first_cell_installs_a_wheel_a_checkout_or_the_public_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="put its wheel"):
        run_first_cell(tmp_path, "", monkeypatch)
    copy = "https://github.com/someone/mini-gpt"
    assert run_first_cell(tmp_path, copy, monkeypatch)[-1] == f"git+{copy}"
    assert run_first_cell(ROOT / "notebooks", copy, monkeypatch)[-1] == str(ROOT)
    wheel = tmp_path / "mini_gpt-0.2.0-py3-none-any.whl"
    wheel.touch()
    assert run_first_cell(tmp_path, copy, monkeypatch)[-1] == str(wheel)


def test_the_first_cell_finds_the_text_and_installs_nothing_that_is_there() -> None:
    first = cells("code")[0]
    assert "find_corpus(" in first.source
    (output,) = first.outputs
    assert output.text.endswith("characters\n")


def test_a_cell_says_what_each_part_costs() -> None:
    (budget,) = (cell for cell in cells("code") if "PARTS = " in cell.source)
    headings = {heading for cell in cells("markdown") for heading in re.findall(r"^## (\d\. .*)", cell.source, re.M)}
    costs = dict(re.findall(r"^(\d\. .*?) +([\d.]+) minutes$", budget.outputs[0].text, re.M))
    assert len(costs) == 6
    for part in costs:
        assert any(heading.startswith(part[:3]) for heading in headings), part

"""Advice can be typed as it stands: a command by the name of this program, or a call of Python."""

import ast
import re
import sys
from pathlib import Path

import pytest

import minigpt
from minigpt.system.advice import advise_commands, advise_page, advise_text, choose_advice, format_setting


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in a virtual environment of the current folder, which is not on the path."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".venv" / "bin" / "minigpt"
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setenv("PATH", "/nowhere")
    return path


def advise() -> str:
    with advise_commands():
        return choose_advice("minigpt train --resume run", "minigpt.resume('run')")


def test_a_command_has_the_path_of_a_program_that_is_not_on_the_path(program: Path) -> None:
    assert advise() == ".venv/bin/minigpt train --resume run"
    assert choose_advice("minigpt train --resume run", "minigpt.resume('run')") == "minigpt.resume('run')"


def test_a_command_has_the_name_of_a_program_that_is_on_the_path(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(program.parent))
    assert advise() == "minigpt train --resume run"


def test_another_program_of_the_same_name_on_the_path_is_not_advised(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minigpt").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert advise() == ".venv/bin/minigpt train --resume run"


def test_a_module_is_advised_as_a_module(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program.parent / "__main__.py").touch()
    monkeypatch.setattr(sys, "argv", [str(program.parent / "__main__.py")])
    assert advise() == "python -m minigpt train --resume run"


def test_a_setting_is_a_flag_for_a_command_and_an_argument_for_python() -> None:
    settings = [("data",), ("max_iters", 5), ("learning_rate", 1e-4), ("precision", "bf16", "fp32")]
    calls = ["data=…", "max_iters=5", "learning_rate=0.0001", "precision='bf16' or 'fp32'"]
    assert [format_setting(*setting) for setting in settings] == calls
    with advise_commands():
        flags = ["--data", "--max-iters 5", "--learning-rate 0.0001", "--precision bf16 or fp32"]
        assert [format_setting(*setting) for setting in settings] == flags


@pytest.mark.parametrize("package", ["training", "finetuning", "runs", "studies", "distributed", "model", "generation"])
def test_errors_of_python_name_no_flags(package: str) -> None:
    """A flag may stand in a whole command, such as `minigpt data prepare --field NAME`."""
    found = []
    for path in (Path(minigpt.__file__).parent / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise):
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                found += [text for text in texts if re.search(r"(^|\s)--[a-z]", text) and "minigpt " not in text]
    assert found == []


def test_a_reader_of_the_page_is_not_told_to_name_a_file() -> None:
    assert advise_text("that text") == "name that text with data=…"
    with advise_commands():
        assert advise_text("that text") == "name that text with --data"
        with advise_page():
            assert advise_text("that text") == "choose another run"

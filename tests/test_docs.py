"""Every command, link, setting and line of code in the docs exists."""

import contextlib
import functools
import importlib
import io
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from conftest import TINY
from snippets import ROOT, find_blocks

import minigpt
from minigpt.cli.main import cli
from minigpt.config import Config

KERNELS = (ROOT / "minigpt" / "kernels").resolve()  # optional
NANOGPT_SCRIPT = "sample.py"  # of another program
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = [line for document in DOCS for block in find_blocks("sh", document.read_text()) for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_every_command_exists(line: str) -> None:
    words = shlex.split(line, comments=True)
    program, *arguments = [word for word in words if not re.match(r"MINIGPT_\w+=", word)]
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "minigpt":
        name, command, rest = cli.resolve_command(click.Context(cli), arguments)
        command.make_context(name, rest)  # raises for a flag that isn't there
    elif program in ("python", "python3") and arguments[0].endswith(".py") and arguments[0] != NANOGPT_SCRIPT:
        assert (ROOT / arguments[0]).is_file()
    else:
        assert (program, arguments[0]) in {
            ("python3", "-m"),
            (".", ".venv/bin/activate"),
            ("pip", "install"),
            ("cp", "-r"),
            ("python", NANOGPT_SCRIPT),
            (".venv/bin/pip", "install"),
            ("torchrun", "--standalone"),
            ("tensorboard", "--logdir"),
        }


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", document.read_text()):
        if not target.startswith("https://"):
            path = document.parent / target if target else document
            is_left_out = path.resolve().parent == KERNELS and not KERNELS.exists()
            assert path.exists() or is_left_out, target
            assert not anchor or anchor in find_anchors(path), f"{target}#{anchor}"


def find_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_toml_in_the_docs_is_valid() -> None:
    for document in DOCS:
        for block in find_blocks("toml", document.read_text()):
            Config.from_toml(block)


def test_the_code_in_the_ladder_page_is_in_the_sources() -> None:
    files = ["model/lecture.py", "studies/ladder/rungs.py"]
    code = [(ROOT / "minigpt" / file).read_text() for file in files]
    shown = find_blocks("python", (ROOT / "docs" / "ladder.md").read_text())
    assert len(shown) >= 10
    for block in shown:
        assert any(block in source for source in code), block


def test_every_function_on_the_architecture_page_exists() -> None:
    steps = re.findall(r"^\d+\. `([\w/]+\.py)`: `([\w.]+)`", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    assert len(steps) >= 28
    for file, name in steps:
        code = (ROOT / "minigpt" / file).read_text()
        for part in name.split("."):
            assert re.search(rf"^\s*(async def|def|class) {part}\b", code, re.M), f"{name} is not in {file}"


def test_every_import_in_the_docs_works() -> None:
    code = "".join(block for document in DOCS for block in find_blocks("python", document.read_text()))
    imports = re.findall(r"^from (minigpt[\w.]*) import (.*)$", code, re.M)
    assert imports
    for module, names in imports:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def test_the_callback_for_weights_and_biases_logs_every_evaluation(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    wandb = SimpleNamespace(
        init=lambda project, config: calls.append(config["max_iters"]),
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finish"),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.txt").write_text(text_file.read_text())
    page = (ROOT / "docs" / "training.md").read_text()
    (code,) = (block for block in find_blocks("python", page) if "wandb" in block)
    assert "max_iters=500" in code
    names: dict[str, Any] = {"settings": TINY}
    exec(code.replace("max_iters=500", "**settings"), names)
    logged = [
        (m.step, {"train loss": m.train_loss, "validation loss": m.validation_loss}) for m in names["run"].metrics
    ]
    assert calls == [60, *logged, "finish"]


def test_the_code_of_the_look_page_runs(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TINY | {"block_size": 32, "max_iters": 1, "device": "cpu"}
    minigpt.train(data=text_file, out=tmp_path / "runs" / "lecture", **settings)
    monkeypatch.chdir(tmp_path)
    blocks = find_blocks("python", (ROOT / "docs" / "look.md").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        exec("".join(blocks), {})
    assert {path.name for path in tmp_path.glob("*.png")} == {"attention.png", "lens.png", "next.png"}


def test_every_command_and_flag_on_the_page_for_users_of_other_programs_exists() -> None:
    page = (ROOT / "docs" / "coming_from.md").read_text()
    rows = re.findall(r"^\| (.*) \| (.*) \|$", page, re.M)
    found = [code for _, here in rows for code in re.findall(r"`([^`]+)`", here)]
    flags = {option for name in ("train", "finetune", "sample") for p in cli.commands[name].params for option in p.opts}
    assert len(found) > 100
    for code in found:
        words = shlex.split(code)
        if words[0] == "minigpt":
            name, command, rest = cli.resolve_command(click.Context(cli), words[1:])
            command.make_context(name, rest)
            if isinstance(command, click.Group):
                inner, below, rest = command.resolve_command(click.Context(command), rest)
                below.make_context(inner, rest)
        elif code.startswith("--"):
            assert words[0] in flags, code
        elif code.startswith("minigpt."):
            names = re.match(r"minigpt\.([\w.]+)", code)
            assert names
            functools.reduce(getattr, names[1].split("."), minigpt)
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file()
        else:
            assert code == "on_step_end"
            assert hasattr(minigpt.Callback, code)

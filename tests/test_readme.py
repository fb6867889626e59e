"""Every command in the README exists, the quick ones and the Python lines run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import forked
import pytest

from minigpt.cli.main import cli
from minigpt.text.bpe import BPETokenizer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


LINES = [line for document in DOCS for block in blocks("sh", document.read_text()) for line in block.splitlines()]
QUICK = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("minigpt ")]
QUICK = [line for line in QUICK if "some minutes" not in line]


@pytest.mark.parametrize("line", LINES)
def test_every_command_exists(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "minigpt":
        name, command, rest = cli.resolve_command(click.Context(cli), arguments)
        command.make_context(name, rest)  # raises for a flag that isn't there
    elif program in ("python", "python3") and arguments[0].endswith(".py"):
        assert (ROOT / arguments[0]).is_file()
    else:
        assert (program, arguments[0]) in {
            ("python3", "-m"),
            (".", ".venv/bin/activate"),
            ("pip", "install"),
            ("torchrun", "--standalone"),
        }


@pytest.fixture(scope="module")
def reader(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has a text, has typed the Python lines, and learned a tokenizer from the text.

    What the lines printed is in printed.txt.
    """
    folder = tmp_path_factory.mktemp("reader")
    # The README's prompt needs its letters, its vocabulary of 512 tokens more words than the verse has.
    (folder / "input.txt").write_text(text_file.read_text() * 5 + "ROMEO: my lantern\n" * 200 + README)
    BPETokenizer.train(README, 300).save(folder / "tokenizer.json")
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def test_the_python_lines_run(reader: Path) -> None:
    printed = (reader / "printed.txt").read_text()
    assert printed.startswith("ROMEO:")
    assert len(printed) == len("ROMEO:") + 200 + 1


@pytest.mark.parametrize("line", QUICK)
def test_the_quick_commands_run(line: str, reader: Path) -> None:
    done = forked.command(shlex.split(line, comments=True)[1:], reader, os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


def test_the_toml_in_the_docs_is_taken() -> None:
    from minigpt.config import Config

    for document in DOCS:
        for block in blocks("toml", document.read_text()):
            Config.from_toml(block)


def test_the_lines_in_the_ladder_s_walk_are_the_code_s() -> None:
    files = ["model/lecture.py", "studies/ladder.py"]
    code = [(ROOT / "minigpt" / file).read_text() for file in files]
    shown = blocks("python", (ROOT / "docs" / "ladder.md").read_text())
    assert len(shown) >= 10
    for block in shown:
        assert any(block in source for source in code), block

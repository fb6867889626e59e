"""The README's quick commands and its Python lines run."""

import contextlib
import io
import os
import shlex
from pathlib import Path

import cli_process
import pytest
from snippets import README, find_blocks

from minigpt.tokenizers.bpe import BPETokenizer

QUICK = [line for block in find_blocks("sh", quick_only=True) for line in block.splitlines()]
# Smaller trainings, for the tests: settings of the run that all commands use, and flags that the tests append.
SMALLER = "max_iters=50, n_embd=32, n_layer=2, eval_windows=16, snapshots=2"
SHORTER = ["--max-iters", "20", "--eval-windows", "16", "--snapshots", "2"]


@pytest.fixture(scope="module")
def reader(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a tokenizer and the run of the README's Python lines; printed.txt has their output."""
    folder = tmp_path_factory.mktemp("reader")
    # The README's prompt needs its letters, its vocabulary of 512 tokens more words than the verse has.
    (folder / "input.txt").write_text(text_file.read_text() * 5 + "ROMEO: my lantern\n" * 200 + README)
    BPETokenizer.train(README, 300).save(folder / "tokenizer.json")
    (code,) = find_blocks("python")
    assert "max_iters=500" in code
    code = code.replace("max_iters=500", SMALLER)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


def test_the_python_lines_run(reader: Path) -> None:
    text, loss = (reader / "printed.txt").read_text().removesuffix("\n").rsplit("\n", 1)
    assert text.startswith("ROMEO:")
    assert len(text) == len("ROMEO:") + 200
    assert float(loss) > 0


@pytest.mark.parametrize("line", QUICK)
def test_the_quick_commands_run(line: str, reader: Path) -> None:
    _, *words = shlex.split(line, comments=True)
    if words[0] in ("train", "finetune"):
        words += SHORTER
    done = cli_process.run_command(words, reader, os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout

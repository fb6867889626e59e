"""What the tests share: a text, a small trained run, and the real command."""

import gc
import json
import os
import pty
import random
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

for name in (
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
):  # set before importing torch: two threads in each test process would slow each other down
    os.environ.setdefault(name, "1")
# A shell starts background programs with these signals ignored, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest  # noqa: E402
from cli_process import COMMAND, CommandProcess, run_command  # noqa: E402

import minigpt  # noqa: E402
from minigpt.finetuning.sft import SFTResult, train_sft  # noqa: E402
from minigpt.runs.run import Run  # noqa: E402

gc.freeze()  # what is imported is no garbage: a collection need not look at it
gc.set_threshold(50_000)  # as in the program

TINY = {
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "block_size": 16,
    "batch_size": 8,
    "max_iters": 60,
    "eval_interval": 20,
    "eval_windows": 16,
    "snapshots": 0,
}
TINY_FLAGS = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))]


SLOWEST_FIRST = (  # by CPU time with an empty cache of Numba, which the first of these files fills
    "kernels/test_numba_loops.py",
    "exchange/test_onnx_export.py",
    "distributed/test_processes.py",
    "test_readme.py",
    "training/test_resume.py",
    "finetuning/test_resume_finetuning.py",
    "cli/test_commands.py",
    "distributed/test_two_hosts.py",
    "cli/test_tokenizer.py",
    "cli/test_modern.py",
    "training/test_wrapping.py",
    "test_hostile_files.py",
    "test_notebook.py",
    "studies/ladder/test_experiment.py",
    "training/test_fault_injection.py",
    "training/test_interrupt.py",
    "cli/test_data.py",
    "training/test_display.py",
    "training/test_diagnostics.py",
    "cli/test_finetune.py",
    "finetuning/test_dpo.py",
    "studies/look/test_views.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the slowest files to the front, so that all workers of pytest-xdist end at about the same time."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def make_text(characters: int = 20_000, seed: int = 0) -> str:
    """Return nonsense verse in the form of a play; the same seed gives the same text."""
    rng = random.Random(seed)
    words = [
        "sea",
        "salt",
        "wind",
        "bell",
        "lantern",
        "harbour",
        "never",
        "often",
        "keeps",
        "the",
        "my",
        "your",
        "sings,",
    ]
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        lines.append(f"{rng.choice(['KEEPER', 'SAILOR', 'GULL'])}:")
        lines += [" ".join(rng.choices(words, k=6)).capitalize() for _ in range(rng.randint(1, 4))] + [""]
    return "\n".join(lines)[:characters]


@pytest.fixture(scope="session")
def text() -> str:
    return make_text()


@pytest.fixture(scope="session")
def text_file(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def trained(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run, trained once; tests that change files work on a copy."""
    settings = TINY | {"snapshots": 3, "device": "cpu"}
    return minigpt.train(data=text_file, out=tmp_path_factory.mktemp("runs") / "trained", **settings)


def train_to_answer(base: Run, folder: Path, answers: str, max_iters: int, **settings: Any) -> SFTResult:
    """Train a copy of a run to answer with those letters in turn, whatever is asked."""
    lines = [json.dumps({"instruction": f"q{n}", "output": answers[n % len(answers)]}) + "\n" for n in range(200)]
    (folder / "a.jsonl").write_text("".join(lines))
    settings = {"max_iters": max_iters, "eval_interval": max_iters, **settings}
    return train_sft(minigpt.load(base.path), folder / "a.jsonl", out=folder / "run", **settings)


def in_terminal(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Run `minigpt` in a terminal of 100 columns; return its exit status and what the terminal shows."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = CommandProcess(arguments, cwd, environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # on Linux: the other end is closed
            break
        if not piece:  # the same on macOS
            break
        shown += piece
    os.close(ours)
    return process.wait(), shown.decode()


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs `minigpt` in an empty folder, in a process that has imported everything already."""

    def call(*arguments: object, env: Mapping[str, str] | None = None, input: str | bytes | None = None) -> Any:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **(env or {})}
        given = input.encode() if isinstance(input, str) else input
        return run_command(arguments, tmp_path, environment, given)

    return call


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs the installed `minigpt`, for tests of how it starts."""

    def call(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **(env or {})}
        options = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "timeout": 120, "encoding": "utf-8"} | options
        return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, env=environment, **options)

    return call

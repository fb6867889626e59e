"""What the tests share: a text, a small trained run, and the real command.

The process that only distributes the tests reads this file too. So PyTorch is imported where it is used.
"""

import gc
import os
import random
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from scheduling import LibraryScheduling, sort_slowest_first  # noqa: E402

import minigpt  # noqa: E402

if TYPE_CHECKING:
    from minigpt.runs.run import Run

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LibraryScheduling | None:
    """Distribute the files of tests among the workers of pytest-xdist."""
    return LibraryScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order once all files are imported."""
    gc.freeze()  # what is imported is no garbage: a collection need not look at it
    gc.set_threshold(50_000)  # as in the program
    sort_slowest_first(items)


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
def trained(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A small run, trained once; tests that change files work on a copy."""
    settings = TINY | {"snapshots": 3, "device": "cpu"}
    return minigpt.train(data=text_file, out=tmp_path_factory.mktemp("runs") / "trained", **settings)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs `minigpt` in an empty folder, in a process that has imported everything already."""
    from cli_process import run_command

    def call(
        *arguments: object,
        env: Mapping[str, str] | None = None,
        input: str | bytes | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> Any:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **(env or {})}
        given = input.encode() if isinstance(input, str) else input
        return run_command(arguments, tmp_path, environment, given, prepare)

    return call


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs the installed `minigpt`, for tests of how it starts."""
    from cli_process import COMMAND

    def call(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **(env or {})}
        options = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "timeout": 120, "encoding": "utf-8"} | options
        return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, env=environment, **options)

    return call

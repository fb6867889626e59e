"""A process is found by its file while it lives, and never taken for another one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minigpt.errors import FileError
from minigpt.system.process_file import find_process, name_process, signal_process

SCRIPT = """
import pathlib, sys
from minigpt.system.process_file import name_process
with name_process(pathlib.Path(sys.argv[1])):
    print("named", flush=True)
    sys.stdin.read()
"""


@contextmanager
def start_named(path: Path) -> Iterator[subprocess.Popen]:
    """Start a process that names itself in a file until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, path], text=True, **pipes) as process:
        try:
            assert process.stdout and process.stdout.readline() == "named\n"
            yield process
        finally:
            process.kill()


def test_a_process_is_found_while_it_lives(tmp_path: Path) -> None:
    path = tmp_path / ".process"
    with start_named(path) as process:
        assert find_process(path) == process.pid
        assert process.stdin
        process.stdin.close()
        process.wait()
        assert find_process(path) is None and not path.exists()


def test_a_killed_process_leaves_a_file_that_names_nobody(tmp_path: Path) -> None:
    path = tmp_path / ".process"
    with start_named(path) as process:
        process.kill()
        process.wait()
        assert path.read_text() == str(process.pid)
        assert find_process(path) is None and not signal_process(path, signal.SIGTERM)


def test_a_signal_reaches_the_process(tmp_path: Path) -> None:
    path = tmp_path / ".process"
    with start_named(path) as process:
        assert signal_process(path, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_the_id_of_another_process_is_not_signalled(tmp_path: Path) -> None:
    path = tmp_path / ".process"
    with subprocess.Popen(["sleep", "1000"]) as other:
        path.write_text(str(other.pid))  # as after a kill, when the system gives the id to another process
        assert find_process(path) is None and not signal_process(path, signal.SIGTERM)
        assert other.poll() is None
        other.kill()


def test_a_process_that_takes_the_file_over_names_itself(tmp_path: Path) -> None:
    path = tmp_path / ".process"
    path.write_text("1")
    with name_process(path):
        assert find_process(path) == os.getpid()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "many", "12 34"])
def test_a_file_without_an_id_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / ".process").write_text(content)
    assert find_process(tmp_path / ".process") is None and find_process(tmp_path / "none") is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    with name_process(tmp_path / "file"):
        (tmp_path / ".process").symlink_to(tmp_path / "file")
        assert find_process(tmp_path / ".process") is None


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write"), name_process(tmp_path / "none" / ".process"):
        pass

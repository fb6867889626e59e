"""Files are written all or nothing, even when the file system refuses."""

import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigpt.errors import FileError
from minigpt.system.files import read_bytes, write_atomic


@pytest.fixture
def small_files() -> Iterator[None]:
    """Limit the files of this process to 1000 bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.usefixtures("small_files")
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    with pytest.raises(FileError, match="cannot write"):
        write_atomic(tmp_path / "file", b"x" * 2000)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(FileError, match="larger than 4 bytes"):
        read_bytes(tmp_path / "file", 4)


@pytest.mark.parametrize(
    ("name", "why"), [("missing", "no such file"), ("folder", "is a folder"), ("file/inside", "not a folder")]
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=f"cannot read '.*{name}': .*{why}"):
        read_bytes(tmp_path / name, 100)


def test_writing_through_a_link_replaces_its_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("name", [".", "..", "folder", "pipe"])
def test_folders_and_pipes_are_never_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="cannot write"):
        write_atomic(tmp_path / "folder" / name if name == ".." else tmp_path / name, b"new")
    assert (tmp_path / "folder").is_dir()
    assert (tmp_path / "pipe").is_fifo()


def test_a_replaced_file_keeps_its_access_rights_and_a_new_one_gets_those_of_another(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    write_atomic(secret, b"old")
    secret.chmod(0o600)
    write_atomic(secret, b"new")
    write_atomic(tmp_path / "beside", b"new", like=secret)
    assert [path.stat().st_mode & 0o777 for path in (secret, tmp_path / "beside")] == [0o600, 0o600]


def test_a_pipe_is_read_only_where_the_user_may_have_named_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="it is a pipe, not a file"):
        read_bytes(pipe, 100)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"piped",))
    writer.start()
    assert read_bytes(pipe, 100, allow_pipe=True) == b"piped"
    writer.join()

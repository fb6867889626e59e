"""Files are written all or nothing, even when the file system refuses."""

import errno
import fcntl
import os
import resource
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minigpt.errors import FileError
from minigpt.system.files import explain_os_errors, flush_folder, link_or_copy, lock_file, read_bytes, write_atomic
from minigpt.system.warn_once import warn_once


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


def fail_with(number: int, folders_only: bool = False) -> Callable[..., None]:
    """Return a function to replace one of the system, which fails as a file system does that lacks it."""

    def fail(descriptor: int, *_: object) -> None:
        if not folders_only or Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES])
def test_files_are_written_where_a_folder_cannot_be_flushed(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(number, folders_only=True))
    warn_once.cache_clear()
    with pytest.warns(UserWarning, match="after a power failure the newest ones may be missing"):
        write_atomic(tmp_path / "file", b"new")
    link_or_copy(tmp_path / "file", tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"new"


def test_a_disk_that_fails_to_flush_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO, folders_only=True))
    with pytest.raises(FileError, match="cannot write"):
        write_atomic(tmp_path / "file", b"new")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_work_goes_on_without_locks_where_the_file_system_has_none(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", fail_with(number))
    warn_once.cache_clear()
    done = []
    with pytest.warns(UserWarning, match="has no locks: a second process"), lock_file(tmp_path / ".lock", "busy"):
        done.append(True)
    assert done


def test_a_lock_that_another_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock_file(path, "busy"), pytest.raises(FileError, match="busy"), lock_file(path, "busy"):
        pass


def test_what_is_lost_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EINVAL, folders_only=True))
    monkeypatch.setattr(fcntl, "flock", fail_with(errno.ENOLCK))
    warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            flush_folder(tmp_path)
            with lock_file(tmp_path / ".lock", "busy"):
                pass
    assert len(said) == 2


def test_an_error_without_a_number_names_a_way_out() -> None:
    message = "cannot write 'a': 9 requested and 5 written: free some space"
    with pytest.raises(FileError, match=message), explain_os_errors("write", "a"):
        raise OSError("9 requested and 5 written")  # as NumPy does on a full disk

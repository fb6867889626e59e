"""Files: read with a size limit, written all or nothing, and every error of the system explained in one sentence."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from minigpt.errors import FileError, InputError
from minigpt.system.text_encoding import decode_text, drop_byte_order_mark
from minigpt.system.warn_once import warn_once

_REASONS = {
    errno.ENOENT: "there is no such file or folder: check the name",
    errno.EACCES: "permission denied: change its permissions, or choose another place",
    errno.EPERM: "permission denied: change its permissions, or choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EISDIR: "it is a folder: name a file",
    errno.EEXIST: "a file of that name is in the way: choose another name",
    errno.ENOTDIR: "a part of the path is a file, not a folder: check the path",
    errno.ENOSPC: "the disk is full: free some space or choose another place; what was there before is intact",
    errno.EDQUOT: "the disk quota is used up: free some space; what was there before is intact",
    errno.EFBIG: "it would be larger than files may be here: raise that limit; what was there before is intact",
    errno.ELOOP: "its symbolic links lead in a circle: name the file itself",
    errno.EMFILE: "too many files are open: raise that limit, ulimit -n",
    errno.ENFILE: "too many files are open on this machine: close some",
    errno.ENXIO: "there is nothing behind that name: name a file",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS}
# The answers of network and shared file systems that cannot flush a folder, or have no locks. A folder that must not be
# read cannot be opened to flush it.
_CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
_CANNOT_LOCK = {errno.ENOLCK, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_FLUSH = (
    "this file system cannot flush the names of files to disk: every file is written, but after a power failure the "
    "newest ones may be missing"
)
_NO_LOCKS = (
    "this file system has no locks: a second process that writes to the same folder would not be refused, so start "
    "only one"
)
_OTHER_OPEN_FILES = 256  # a process has at most this many files open for other reasons


@contextmanager
def explain_os_errors(action: str, path: Path | str) -> Iterator[None]:
    """Turn an OSError in the block into a FileError: `cannot {action} {path}: {the reason and the way out}`.

    A ValueError becomes a FileError too: Python raises it for a path with a zero byte.

    Args:
        action: a verb for the message, such as "read".
        path: the file or folder.
    """
    try:
        yield
    except OSError as error:
        why = _REASONS.get(error.errno or 0, error.strerror or f"{error}: free some space or choose another place")
        raise FileError(f"cannot {action} {str(path)!r}: {why}") from error
    except ValueError as error:
        raise FileError(f"cannot {action} {str(path)!r}: {error}; choose another name") from error


def read_bytes(path: Path | str, limit: int, allow_pipe: bool = False) -> bytes:
    """Read a file.

    Args:
        path: the file.
        limit: the largest size in bytes.
        allow_pipe: True also reads a pipe, and waits for its content. This is for paths that the user named.

    Raises:
        FileError: the file is missing, unreadable or larger, or is a device or another pipe.
    """
    with explain_os_errors("read", path):
        kind = Path(path).stat().st_mode  # before the file is opened: opening a pipe waits for its other end
        if stat.S_ISFIFO(kind) and not allow_pipe:
            raise FileError(f"cannot read {str(path)!r}: it is a pipe, not a file: put the file itself there")
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind) or stat.S_ISDIR(kind)):
            raise FileError(f"cannot read {str(path)!r}: it is a device, not a file: name a file")
    with explain_os_errors("read", path), Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 for pipes, and for files such as those in /proc
        content = file.read(size + 1 if size else limit + 1) if size <= limit else None
    if content is None or len(content) > limit:
        raise FileError(f"cannot read {str(path)!r}: it is larger than {limit:,} bytes, the limit: use a part of it")
    return content


def read_text(path: Path | str, limit: int, allow_pipe: bool = False) -> str:
    """Read a UTF-8 file, with its line ends unchanged and without a byte order mark.

    Raises:
        FileError: as `read_bytes` and `decode_text` do.
    """
    name = repr(str(path))
    return drop_byte_order_mark(decode_text(read_bytes(path, limit, allow_pipe), name), name)


def write_atomic(path: Path, content: bytes, like: Path | None = None) -> None:
    """Write a file so that even after a crash either the old or the new content is there.

    The content goes to a temporary file beside it and is flushed to disk; then that file is renamed.

    Args:
        path: the file. Through a symbolic link the file that it leads to is written. A file that is replaced keeps its
            access rights.
        content: the new content.
        like: an existing file whose access rights a new file gets.

    Raises:
        FileError: the file cannot be written; nothing has changed.
    """
    with explain_os_errors("write", path):
        path = path.resolve() if path.is_symlink() else path
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "a device"
            raise FileError(f"cannot write {str(path)!r}: it is {what}, not a file: choose another name")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.unlink(missing_ok=True)  # a leftover, or a link that would lead the write elsewhere
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                _copy_mode(path if path.exists() else like, file.fileno())
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


def _copy_mode(source: Path | None, descriptor: int) -> None:
    """Give an open file the access rights of another file, where the system has such rights."""
    if source and source.exists() and hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):  # some network disks have fixed rights
            os.fchmod(descriptor, stat.S_IMODE(source.stat().st_mode))


@contextmanager
def lock_file(path: Path, message: str, error: type[InputError] = FileError) -> Iterator[None]:
    """Hold a lock during the block. On a file system without locks the block runs unlocked, after a warning.

    Args:
        path: the lock's file. It stays afterwards: without it, two processes could hold two locks of one name.
        message: what to say if another process holds the lock.
        error: what to raise then.

    Raises:
        InputError: another process holds the lock.
        FileError: the file cannot be made.
    """
    import filelock  # takes a tenth of the start of a command

    lock = filelock.FileLock(path)
    require_inside(path.parent, [path])
    with explain_os_errors("lock", path.parent):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise error(message) from None
        except (OSError, NotImplementedError) as failure:  # filelock raises NotImplementedError for ENOSYS
            if isinstance(failure, OSError) and failure.errno not in _CANNOT_LOCK:
                raise
            warn_once(_NO_LOCKS)
    try:
        yield
    finally:
        lock.release()


def require_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Raise FileError for links that lead out of a folder: an untrusted folder must not make us use other files.

    Args:
        folder: the folder.
        paths: the paths in it that will be used.
    """
    with explain_os_errors("look into", folder):
        places = _find_allowed_folders(Path(os.path.realpath(folder)))
        for path in paths:
            leads_to = Path(os.path.realpath(path))
            if not any(leads_to.is_relative_to(place) for place in places):
                where = f"{str(path)!r} is a link that leads out of its folder, to {str(leads_to)!r}"
                raise FileError(f"{where}: put the file itself there")


def _find_allowed_folders(folder: Path) -> list[Path]:
    """Return where the links in a folder may lead: into it, or in Hugging Face's cache to the files of its model."""
    for parent in [folder, *folder.parents]:
        if parent.name == "snapshots" and parent.parent.name.startswith(("models--", "datasets--", "spaces--")):
            return [parent.parent, parent.parents[1] / "blobs"]
    return [folder]


def create_folder(folder: Path) -> None:
    """Create a folder, and those that it is in, unless they exist. Raise FileError."""
    with explain_os_errors("create the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)


def require_writable(path: Path) -> None:
    """Raise FileError if `write_atomic` could not write the file. Call it before the work that makes the content."""
    with explain_os_errors("write", path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        if not os.access(path.parent, os.W_OK):
            raise OSError(errno.EACCES if path.parent.is_dir() else errno.ENOENT, "")


def flush_folder(folder: Path) -> None:
    """Flush the names of a folder's files to disk, except on Windows. Warn once if the file system cannot."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
        warn_once(_NO_FLUSH)


def allow_open_files(count: int) -> None:
    """Raise the limit of open files of this process, so that it can open `count` more, as far as the system allows."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count + _OTHER_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, count + _OTHER_OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def silence_stream(stream: IO[str]) -> None:
    """Discard what a stream still holds and all further output, so that its last flush cannot fail."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file cannot fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link, or a copy where the file system has no links.

    Even after a crash either the old or the new file has the name.

    Args:
        source: the file.
        target: the second name; a file that has it is replaced.

    Raises:
        FileError: the link or copy cannot be made.
    """
    with explain_os_errors("write", target):
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            temporary.unlink(missing_ok=True)
            temporary.hardlink_to(source)
            temporary.replace(target)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            write_atomic(target, source.read_bytes())
        finally:
            temporary.unlink(missing_ok=True)  # renaming does nothing if both names are links to one file
        flush_folder(target.parent)

"""The file or folder that an export writes: it appears whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt.errors import FileError
from minigpt.system.files import explain_os_errors, flush_folder


@contextmanager
def replace_target(out: Path, names: Collection[str] = (), overwrite: bool = False) -> Iterator[Path]:
    """Give a path to write to. It becomes `out` at the end of the block, and is removed after an error.

    Args:
        out: the file or folder to write.
        names: paths of the files and folders that a folder of this format has; none for a file.
        overwrite: whether `out` may exist. A folder with any other file is never replaced.

    Yields:
        A path beside `out`, with nothing there.

    Raises:
        FileError: `out` exists, or cannot be written.
    """
    require_replaceable(out, names, overwrite)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with explain_os_errors("write", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside)
        try:
            yield aside
            require_replaceable(out, names, overwrite)
            if out.is_dir():
                old = out.with_name(f".{out.name}.{os.getpid()}.old.tmp")
                out.rename(old)
                aside.rename(out)
                _remove(old)
            else:
                aside.replace(out)
            flush_folder(out.parent)
        finally:
            _remove(aside)


def require_replaceable(out: Path, names: Collection[str], overwrite: bool) -> None:
    """Raise FileError if something is at `out` that an export must not replace."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise FileError(f"{str(out)!r} exists: choose another --out, or add --overwrite")
    if out.is_symlink() or out.is_dir() != bool(names):
        raise FileError(f"{str(out)!r} is not {'a folder' if names else 'a file'}: choose another --out")
    files = (path.relative_to(out) for path in out.rglob("*") if not path.is_dir())
    others = sorted(str(file) for file in files if not {str(file), file.parts[0]} & {*names}) if names else []
    if others:
        raise FileError(f"{str(out)!r} holds {others[0]!r}, which is no part of an export: choose another --out")


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

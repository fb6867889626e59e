"""The files of a large corpus, found by name, pattern or folder."""

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minigpt.data.decompression import COMPRESSIONS
from minigpt.errors import FileError
from minigpt.system.files import explain_os_errors

SUFFIXES = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class FoundFiles:
    """Files to read.

    Attributes:
        files: their paths, in order.
        sizes: their sizes in bytes, compressed as they are.
        others: how many other files their folders have.
    """

    files: list[Path]
    sizes: list[int]
    others: int

    @property
    def bytes(self) -> int:
        """The total size of the files in bytes, compressed as they are."""
        return sum(self.sizes)


def find_files(paths: Iterable[str | Path]) -> FoundFiles:
    """Find the files that paths name; each file is found once.

    Args:
        paths: files, patterns such as 'texts/**/*.md', and folders. A file that is named, or that a pattern matches, is
            read whatever its ending. In a folder, and in the folders in it, the files that end in .txt, .md, .jsonl,
            .ndjson or .parquet are read, compressed or not; hidden files are left out.

    Raises:
        FileError: a path leads nowhere, or a named file is empty.
    """
    files: dict[str, Path] = {}
    others = 0
    for path in paths:
        with explain_os_errors("read", path):
            found, others_there = _expand_path(str(path))
        for file in found:
            files.setdefault(os.path.realpath(file), file)
        others += others_there
    with explain_os_errors("read", "the files"):
        return FoundFiles(list(files.values()), [file.stat().st_size for file in files.values()], others)


def _expand_path(name: str) -> tuple[list[Path], int]:
    """Return the files that one path names, and how many other files its folders have."""
    path = Path(name)
    if not name:
        raise FileError("a path is empty: name a file, a folder or a pattern")
    if path.is_dir():
        texts, others = _find_texts(path)
        if not texts:
            listed = ", ".join(SUFFIXES)
            raise FileError(f"the folder {name!r} has no {listed} in it: name others by a pattern, '*.py'")
        return texts, others
    if path.exists():
        _require_regular_file(path)
        if not path.stat().st_size:
            raise FileError(f"{name!r} is empty: leave it out")
        return [path], 0
    if not glob.has_magic(name):
        path.stat()  # raises the reason why the file cannot be read
    return _expand_pattern(name)


def _expand_pattern(pattern: str) -> tuple[list[Path], int]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (absolute ones too)
    found, others = [match for match in matches if not match.is_dir()], 0
    for folder in matches:
        if folder.is_dir() and "**" not in pattern:  # "**" has already matched the files in the folder
            texts, others_there = _find_texts(folder)
            found, others = found + texts, others + others_there
    if not found:
        raise FileError(f"cannot read {pattern!r}: no file fits the pattern: check the name")
    for file in found:
        _require_regular_file(file)
    return found, others


def _find_texts(folder: Path) -> tuple[list[Path], int]:
    """Return the files below a folder that have one of the endings, and how many others it has."""
    files = sorted(_list_files(folder))
    texts = [file for file in files if _get_extension(file) in SUFFIXES]
    return texts, len(files) - len(texts)


def _list_files(folder: Path) -> Iterator[Path]:
    """List the files below a folder, without hidden ones. Raise FileError for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        with explain_os_errors("read", error.filename):
            raise error

    for path, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(path, name) for name in names if not name.startswith(".") and Path(path, name).is_file())


def _get_extension(path: Path) -> str:
    """Return the ending of a file's name, without that of a compression."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSIONS else path.suffix.lower()


def _require_regular_file(path: Path) -> None:
    """Raise FileError for a pipe or a device: a preparation reads its files more than once."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{str(path)!r} is a pipe or a device, and files are read more than once: save it to a file")

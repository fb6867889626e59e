"""The files of a large corpus, found by name, pattern or folder."""

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.data.decompression import COMPRESSIONS
from minigpt.errors import FileError
from minigpt.system.files import explain_os_errors

_ANY_FOLDERS = re.compile(r"(?:(.*?)/)?\*\*(?:/(.*))?", re.DOTALL)  # the pattern before and after the first "**"
SUFFIXES = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class FoundFiles:
    """Files to read.

    Attributes:
        files: their paths, in order.
        sizes: their sizes in bytes, compressed as they are.
        others: how many other files their folders have.
        dead_links: how many links lead nowhere; they are left out.
    """

    files: list[Path]
    sizes: list[int]
    others: int
    dead_links: int

    @property
    def bytes(self) -> int:
        """The total size of the files in bytes, compressed as they are."""
        return sum(self.sizes)


def find_files(paths: Iterable[str | Path]) -> FoundFiles:
    """Find the files that paths name; each file is found once.

    Args:
        paths: files, patterns such as 'texts/**/*.md', and folders. A file that is named, or that a pattern matches, is
            read whatever its ending. In a folder, and in the folders in it, the files that end in .txt, .md, .jsonl,
            .ndjson or .parquet are read, compressed or not; hidden files are left out. Links to files and folders are
            followed, but not in a circle.

    Raises:
        FileError: a path leads nowhere, or a named file is empty.
    """
    files: dict[str, Path] = {}
    others, dead_links = 0, 0
    for path in paths:
        with explain_os_errors("read", path):
            found = _expand_path(str(path))
        for file in found.texts:
            files.setdefault(os.path.realpath(file), file)
        others, dead_links = others + found.others, dead_links + found.dead_links
    with explain_os_errors("read", "the files"):
        return FoundFiles(list(files.values()), [file.stat().st_size for file in files.values()], others, dead_links)


@dataclass
class _Found:
    """The files to read that one path names, and how many others and dead links there are beside them."""

    texts: list[Path] = field(default_factory=list)
    others: int = 0
    dead_links: int = 0


def _expand_path(name: str) -> _Found:
    path = Path(name)
    if not name:
        raise FileError("a path is empty: name a file, a folder or a pattern")
    if path.is_dir():
        found = _Found()
        _find_texts(path, found)
        if not found.texts:
            listed = ", ".join(SUFFIXES)
            raise FileError(f"the folder {name!r} has no {listed} in it: name others by a pattern, '*.py'")
        return found
    if path.exists():
        _require_regular_file(path)
        if not path.stat().st_size:
            raise FileError(f"{name!r} is empty: leave it out")
        return _Found([path])
    if not glob.has_magic(name):
        path.stat()  # raises the reason why the file cannot be read
    return _expand_pattern(name)


def _expand_pattern(pattern: str) -> _Found:
    matches = [Path(match) for match in sorted(_glob(pattern))]
    found, dead = _Found(), [match for match in matches if not match.exists()]
    found.texts = [match for match in matches if match.exists() and not match.is_dir()]
    found.dead_links = len(dead)
    for folder in matches:
        if folder.is_dir() and "**" not in pattern:  # "**" has already matched the files in the folder
            _find_texts(folder, found)
    if not found.texts and dead:
        dead[0].stat()  # raises the reason
    if not found.texts:
        raise FileError(f"cannot read {pattern!r}: no file fits the pattern: check the name")
    for file in found.texts:
        _require_regular_file(file)
    return found


def _glob(pattern: str) -> set[str]:
    """Return what matches a pattern, as the library does, but "**" does not go in circles."""
    parts = _ANY_FOLDERS.fullmatch(pattern)
    if parts is None:
        return set(glob.glob(pattern))  # noqa: PTH207 (absolute ones too)
    base, rest = "." if parts[1] is None else parts[1] or "/", parts[2] or "*"
    folders = [place for start in _glob(base) for place, _ in _walk(Path(start))]
    return set().union(*(_glob(os.path.join(glob.escape(str(folder)), rest)) for folder in folders))  # noqa: PTH118


def _find_texts(folder: Path, found: _Found) -> None:
    """Add the files below a folder that have one of the endings, and count the others. Raise FileError as `_walk`."""
    for place, names in _walk(folder):
        files = [place / name for name in names]
        texts = [file for file in files if file.is_file() and _get_extension(file) in SUFFIXES]
        found.texts += texts
        found.dead_links += sum(not file.exists() for file in files)
        found.others += sum(file.is_file() for file in files) - len(texts)
    found.texts.sort()


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all folders in it, also linked ones, with the names of their files; no hidden ones.

    Raises:
        FileError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        with explain_os_errors("read", error.filename):
            raise error

    seen = set(map(str, Path(os.path.realpath(folder)).parents))  # a link to a folder around this one is a circle too
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), [name for name in names if not name.startswith(".")]


def _get_extension(path: Path) -> str:
    """Return the ending of a file's name, without that of a compression."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSIONS else path.suffix.lower()


def _require_regular_file(path: Path) -> None:
    """Raise FileError for a pipe or a device: a preparation reads its files more than once."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{str(path)!r} is a pipe or a device, and files are read more than once: save it to a file")

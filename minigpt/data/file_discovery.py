"""Where a large corpus lies: files found by name, pattern or folder, and opened, compressed or not."""

import contextlib
import glob
import gzip
import importlib
import io
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minigpt.errors import FileError, MissingExtraError
from minigpt.system.files import explain_os_errors

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".zst")
BLOCK = 2**20  # bytes copied at a time
LARGEST_WINDOW = 2**29  # bytes that Zstandard may look back
PACKED = 2**12  # bytes unpacked at a time, which may become thirty thousand times as many
SURELY, RATIO = 2**30, 200  # bytes that any file may become, and how many times its size: text never reaches that


@dataclass(frozen=True)
class FoundFiles:
    """Files to read, in order, their sizes in bytes, and how many others their folders have."""

    files: list[Path]
    sizes: list[int]
    others: int

    @property
    def bytes(self) -> int:
        """Of all files, compressed as they are."""
        return sum(self.sizes)


def find_files(paths: Iterable[str | Path]) -> FoundFiles:
    """The files that the paths name: files, patterns such as 'texts/**/*.md', and folders with all that they hold.

    A file that is named, or fits a pattern, is taken whatever its ending; of a folder those that end in .txt, .md,
    .jsonl or .parquet, compressed or not; hidden ones are left alone. None is taken twice. Raises FileError for a path
    that leads nowhere and for a file without a byte in it that was named.
    """
    files: dict[str, Path] = {}
    others = 0
    for given in paths:
        with explain_os_errors("read", given):
            found, left = _expand_path(str(given))
        for file in found:
            files.setdefault(os.path.realpath(file), file)
        others += left
    with explain_os_errors("read", "the files"):
        return FoundFiles(list(files.values()), [file.stat().st_size for file in files.values()], others)


def _expand_path(given: str) -> tuple[list[Path], int]:
    """The files that one path names, and how many others there are in its folders."""
    path = Path(given)
    if not given:
        raise FileError("a path is empty: name a file, a folder or a pattern")
    if path.is_dir():
        inside = sorted(_list_files(path))
        taken = [file for file in inside if _get_extension(file) in SUFFIXES]
        if not taken:
            listed = ", ".join(SUFFIXES)
            raise FileError(f"the folder {given!r} has no {listed} in it: name others by a pattern, '*.py'")
        return taken, len(inside) - len(taken)
    if path.exists():
        _require_content(path)
        return [path], 0
    if not glob.has_magic(given):
        path.stat()  # says what is wrong with it
    fits = [Path(name) for name in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207 (absolute ones too)
    taken, others = [file for file in fits if not file.is_dir()], 0
    for folder in fits:
        if folder.is_dir() and "**" not in given:  # which fits what is in the folders too
            inside = sorted(_list_files(folder))
            more = [file for file in inside if _get_extension(file) in SUFFIXES]
            taken, others = taken + more, others + len(inside) - len(more)
    if not taken:
        raise FileError(f"cannot read {given!r}: no file fits the pattern: check the name")
    for file in taken:
        _require_regular_file(file)
    return taken, others


def _require_regular_file(path: Path) -> None:
    """Raise FileError for a pipe or a device: texts are read more than once."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{str(path)!r} is a pipe or a device, and texts are read more than once: save it to a file")


def _require_content(path: Path) -> None:
    """The same, and for an empty file."""
    _require_regular_file(path)
    if not path.stat().st_size:
        raise FileError(f"{str(path)!r} is empty: leave it out")


def _list_files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without the hidden ones. Raises FileError for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        with explain_os_errors("read", error.filename):
            raise error

    for path, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(path, name) for name in names if not name.startswith(".") and Path(path, name).is_file())


def _get_extension(path: Path) -> str:
    """What kind of file it is by its name, compressed or not."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSIONS else path.suffix.lower()


@contextlib.contextmanager
def open_decompressed(path: Path) -> Iterator[tuple[IO[bytes], str, IO[bytes]]]:
    """A file's content, its name without the ending of a compression, and the file itself, as far as it is read.

    Raises FileError for a compressed file that is damaged or cut short.
    """
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    name = (path.stem if compression else path.name).lower()
    with contextlib.ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(path.open("rb"))
        file: Any = raw
        try:
            if compression == ".gz":
                file = stack.enter_context(gzip.GzipFile(fileobj=raw))
            elif compression == ".zst":
                file = _ZstdReader(raw)
            if compression:
                file = io.BufferedReader(_BoundedReader(file, path), BLOCK)
            if compression and name.endswith(".parquet"):  # which is read back and forth
                whole = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, whole, BLOCK)
                whole.seek(0)
                file = whole
            yield file, name, raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = " ".join(str(error).split())
            raise FileError(
                f"{str(path)!r} is damaged or cut short ({reason}): fetch it again, or leave it out"
            ) from None


class _BoundedReader(io.RawIOBase):
    """A file that is unpacked as it is read; FileError where it becomes more than a text would."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file, self.path = file, path
        self.left = max(SURELY, RATIO * path.stat().st_size)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there is content."""
        count = self.file.readinto(buffer)
        self.left -= count
        if self.left < 0:
            why = f"unpacks to more than {RATIO} times its size, as hardly a text does"
            raise FileError(f"{str(self.path)!r} {why}: unpack it first, or leave it out")
        return count


class _ZstdReader(io.RawIOBase):
    """What a Zstandard file holds, frame by frame; EOFError where the last one does not end."""

    def __init__(self, file: IO[bytes]) -> None:
        zstandard = import_library("zstandard")
        self.file, self.damaged = file, zstandard.ZstdError
        self.new = lambda: zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()
        self.frame: Any = None
        self.packed, self.rest = b"", memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there is content."""
        while not self.rest:
            self.packed = self.packed or self.file.read(PACKED)
            if not self.packed:
                if self.frame is not None:
                    raise EOFError("its last frame does not end")
                return 0
            self.frame = self.frame or self.new()
            try:
                self.rest = memoryview(self.frame.decompress(self.packed))
            except self.damaged as error:
                raise EOFError(str(error)) from None
            self.packed = b""
            if self.frame.eof:
                self.packed, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def import_library(name: str) -> Any:
    """A library that not everyone needs. Raises MissingExtraError if it isn't installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(name.split(".")[0], "data") from None

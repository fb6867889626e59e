"""Where a large corpus lies: files found by name, pattern or folder, and opened, compressed or not."""

import contextlib
import glob
import gzip
import importlib
import io
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minigpt.errors import FileError, MissingExtraError
from minigpt.files import explained

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".zst")
BLOCK = 2**20  # bytes copied at a time
PACKED = 2**16  # bytes unpacked at a time, which may become a thousand times as many


@dataclass(frozen=True)
class Found:
    """Files to read, in order, their sizes in bytes, and how many others their folders have."""

    files: list[Path]
    sizes: list[int]
    others: int

    @property
    def bytes(self) -> int:
        """Of all files, compressed as they are."""
        return sum(self.sizes)


def find_files(paths: Iterable[str | Path]) -> Found:
    """The files that the paths name: files, patterns such as 'texts/**/*.md', and folders with all that they hold.

    A file that is named, or fits a pattern, is taken whatever its ending; of a folder those that end in .txt, .md,
    .jsonl or .parquet, compressed or not; hidden ones are left alone. None is taken twice. Raises FileError for a path
    that leads nowhere and for a file without a byte in it that was named.
    """
    files: dict[Path, Path] = {}
    others = 0
    for given in paths:
        with explained("read", given):
            path = Path(given)
            pattern = [] if path.exists() else sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 (absolute ones too)
            if not path.exists() and not pattern:
                what = "no file fits the pattern" if glob.has_magic(str(given)) else "there is no such file or folder"
                raise FileError(f"cannot read {str(given)!r}: {what}: check the name")
            for place in [path] if path.exists() else [Path(name) for name in pattern]:
                if place.is_dir() and pattern:
                    continue  # ** fits folders too, and the files in them
                inside = sorted(within(place)) if place.is_dir() else [place]
                taken = [file for file in inside if file == place or ending(file) in SUFFIXES]
                others += len(inside) - len(taken)
                if not taken:
                    listed = ", ".join(SUFFIXES)
                    raise FileError(
                        f"the folder {str(place)!r} has no {listed} in it: name others by a pattern, '*.py'"
                    )
                for file in taken:
                    if file == path and not file.stat().st_size and stat.S_ISREG(file.stat().st_mode):
                        raise FileError(f"{str(file)!r} is empty: leave it out")
                    files.setdefault(file.resolve(), file)
    with explained("read", "the files"):
        return Found(list(files.values()), [file.stat().st_size for file in files.values()], others)


def within(folder: Path) -> Iterator[Path]:
    """The files below a folder, without the hidden ones."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def ending(path: Path) -> str:
    """What kind of file it is by its name, compressed or not."""
    return Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


@contextlib.contextmanager
def decompressed(path: Path) -> Iterator[tuple[IO[bytes], str, IO[bytes]]]:
    """A file's content, its name without the ending of a compression, and the file itself, as far as it is read.

    Raises FileError for a compressed file that is damaged or cut short.
    """
    name, compression = (path.stem, path.suffix) if path.suffix in COMPRESSIONS else (path.name, "")
    with contextlib.ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(path.open("rb"))
        file: Any = raw
        try:
            if compression == ".gz":
                file = stack.enter_context(gzip.GzipFile(fileobj=raw))
            elif compression == ".zst":
                file = io.BufferedReader(Unpacked(raw), BLOCK)
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


class Unpacked(io.RawIOBase):
    """What a Zstandard file holds, frame by frame; EOFError where the last one does not end."""

    def __init__(self, file: IO[bytes]) -> None:
        zstandard = imported("zstandard")
        self.file, self.damaged = file, zstandard.ZstdError
        self.new = lambda: zstandard.ZstdDecompressor().decompressobj()
        self.frame: Any = None
        self.packed = self.rest = b""

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
                self.rest = self.frame.decompress(self.packed)
            except self.damaged as error:
                raise EOFError(str(error)) from None
            self.packed = b""
            if self.frame.eof:
                self.packed, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def imported(name: str) -> Any:
    """A library that not everyone needs. Raises MissingExtraError if it isn't installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(name.split(".")[0], "data") from None

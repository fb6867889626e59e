"""Files that are compressed by gzip or Zstandard, read as streams."""

import contextlib
import gzip
import importlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from minigpt.errors import FileError, MissingExtraError

COMPRESSIONS = (".gz", ".zst")
MAX_RATIO = 200  # unpacked size divided by packed size, against decompression bombs; text never reaches it
ALLOWED_BYTES = 2**30  # a file may always unpack to this size

_BLOCK = 2**20  # bytes copied at a time
_MAX_WINDOW_BYTES = 2**29  # bytes that Zstandard may look back
_PACKED_AT_A_TIME = 2**12  # bytes; they can unpack to thirty thousand times as many


@contextlib.contextmanager
def open_decompressed(path: Path, allowed_bytes: int = ALLOWED_BYTES) -> Iterator[tuple[IO[bytes], str, IO[bytes]]]:
    """Open a file, and decompress it if its name says so.

    Args:
        path: the file.
        allowed_bytes: the size that any file may unpack to; a larger one may have 200 times its compressed size.

    Yields:
        The content, the file's name in lower case without the ending of a compression, and the compressed file itself,
        whose position tells how far it has been read.

    Raises:
        FileError: the compressed file is damaged, cut short, or unpacks to far more than a text would.
        MissingExtraError: it is compressed by Zstandard, and zstandard is not installed.
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
                file = ZstdReader(raw)
            if compression:
                file = io.BufferedReader(_BoundedReader(file, path, allowed_bytes), _BLOCK)
            if compression and name.endswith(".parquet"):  # its reader needs a file that can seek
                unpacked = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, unpacked, _BLOCK)
                unpacked.seek(0)
                file = unpacked
            yield file, name, raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = " ".join(str(error).split())
            raise FileError(
                f"{str(path)!r} is damaged or cut short ({reason}): fetch it again, or leave it out"
            ) from None


class _BoundedReader(io.RawIOBase):
    """A compressed file that raises FileError once it has unpacked to more than a text would."""

    def __init__(self, file: Any, path: Path, allowed_bytes: int) -> None:
        self.file, self.path = file, path
        self.left = max(allowed_bytes, MAX_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; return the number of bytes, 0 at the end."""
        count = self.file.readinto(buffer)
        self.left -= count
        if self.left < 0:
            why = f"unpacks to more than {MAX_RATIO} times its size, as hardly any text does"
            raise FileError(f"{str(self.path)!r} {why}: unpack it first, or leave it out")
        return count


class ZstdReader(io.RawIOBase):
    """The content of a Zstandard file, frame by frame; raises EOFError if the last frame does not end."""

    def __init__(self, file: IO[bytes]) -> None:
        zstandard = import_library("zstandard")
        self.file, self.damage_error = file, zstandard.ZstdError
        self.new_frame = lambda: zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
        self.frame: Any = None
        self.packed, self.unpacked = b"", memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; return the number of bytes, 0 at the end."""
        while not self.unpacked:
            self.packed = self.packed or self.file.read(_PACKED_AT_A_TIME)
            if not self.packed:
                if self.frame is not None:
                    raise EOFError("its last frame does not end")
                return 0
            self.frame = self.frame or self.new_frame()
            try:
                self.unpacked = memoryview(self.frame.decompress(self.packed))
            except self.damage_error as error:
                raise EOFError(str(error)) from None
            self.packed = b""
            if self.frame.eof:
                self.packed, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.unpacked))
        buffer[:count], self.unpacked = self.unpacked[:count], self.unpacked[count:]
        return count


def import_library(name: str) -> Any:
    """Import a library of the extra `data`. Raise MissingExtraError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(name.split(".")[0], "data") from None

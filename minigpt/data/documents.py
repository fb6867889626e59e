"""Documents out of files: plain text, JSON lines and Parquet, each also compressed by gzip or Zstandard.

A file is read as a stream, so that its size does not matter: a document comes in chunks, the last of which is marked.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from minigpt.data.file_discovery import RATIO, SURELY, import_library, open_decompressed
from minigpt.errors import DataError, FileError
from minigpt.system.files import explain_os_errors

CHUNK = 2**20  # bytes read at a time
LONGEST_LINE = 2**25  # bytes of a line of JSON, of which Python may make thirty times as many
LONGEST_DOCUMENT = 2**26  # characters between two separators: in more there is none
ROWS = 256  # of a Parquet file at a time
SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"  # which some programs begin a file with

Errors = Literal["strict", "replace"]
Chunk = tuple[str, bool]  # a part of a document, and whether it is its last


class DocumentReader:
    """How documents are read, and what was met on the way.

    Attributes:
        field: the field of JSON lines, or the column of Parquet, that holds the text.
        separator: what stands between two documents within a text file, with the line ends around it; without one a
            file is a document.
        errors: what to do about bytes that are no UTF-8: "strict" refuses, "replace" writes U+FFFD and counts.
        replaced: how many times that was.
        empty: documents without a single character, which are left out.
        position: how many bytes of the file at hand are read.
    """

    def __init__(self, field: str = "text", separator: str | None = None, errors: Errors = "strict") -> None:
        self.field, self.separator, self.errors = field, separator, errors
        self.replaced = self.empty = 0
        self.position: Callable[[], int] = lambda: 0

    def read(self, path: Path) -> Iterator[Chunk]:
        """The documents of a file, in order, in chunks; a document is never empty.

        Raises FileError or DataError, which name the file and the place, for what cannot be read.
        """
        with explain_os_errors("read", path), open_decompressed(path) as (file, name, raw):
            self.position = raw.tell
            documents = {".jsonl": self._json_lines, ".parquet": self._parquet}.get(Path(name).suffix, self._text)
            begun = False
            for chunk, last in documents(file, path):
                begun = begun or bool(chunk)
                if last and not begun:
                    self.empty += 1
                elif chunk or last:
                    yield chunk, last
                begun = begun and not last

    def _text(self, file: IO[bytes], path: Path) -> Iterator[Chunk]:
        chunks = self._decoded(file, path)
        if self.separator is None:
            yield from ((chunk, False) for chunk in chunks)
            yield "", True
            return
        rest = ""
        for chunk in chunks:
            *documents, rest = (rest + chunk).split(self.separator)
            yield from ((document.strip("\r\n"), True) for document in documents)
            if len(rest) > LONGEST_DOCUMENT:
                most = f"{LONGEST_DOCUMENT:,} characters"
                raise DataError(f"{str(path)!r} has no separator {self.separator!r} within {most}: check --separator")
        if rest.strip("\r\n"):  # after the last separator nothing has to follow
            yield rest.strip("\r\n"), True

    def _decoded(self, file: IO[bytes], path: Path) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(self._handler())
        read = 0
        while True:
            content = file.read(CHUNK)
            zero = content.find(0)
            if zero >= 0:
                raise FileError(f"{str(path)!r} is not a text but binary: byte {read + zero:,} is zero; leave it out")
            held = len(decoder.getstate()[0])  # bytes of a character whose rest is in this chunk
            try:
                chunk = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                raise self._not_utf8(path, f"byte {read - held + error.start:,}", error) from None
            yield chunk
            if not content:
                return
            read += len(content)

    def _json_lines(self, file: IO[bytes], path: Path) -> Iterator[Chunk]:
        for number, where, line in read_numbered_lines(file, path, LONGEST_LINE, "cut it into several documents"):
            try:
                text = line.decode("utf-8", self._handler())
                entry: Any = json.loads(text.removeprefix(BOM) if number == 1 else text, parse_int=lambda digits: 0)
            except UnicodeDecodeError as error:
                raise self._not_utf8(path, f"line {number:,}, byte {error.start:,}", error) from None
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}, is not JSON ({error}): mend it or leave it out") from None
            if not isinstance(entry, dict) or self.field not in entry:
                names = ", ".join(map(repr, list(entry)[:8])) if isinstance(entry, dict) else "none"
                raise DataError(f"{where}, has no field {self.field!r} (it has {names}): name the one with --field")
            if not isinstance(entry[self.field], str | None):
                kind = type(entry[self.field]).__name__
                raise DataError(f"{where}: its field {self.field!r} is no text but {kind}: name another with --field")
            yield self._whole(entry[self.field] or "", where), True

    def _parquet(self, file: IO[bytes], path: Path) -> Iterator[Chunk]:
        pyarrow, parquet = import_library("pyarrow"), import_library("pyarrow.parquet")
        try:
            table = parquet.ParquetFile(file)
            names = table.schema_arrow.names
            if self.field not in names:
                listed = ", ".join(map(repr, names[:8]))
                raise DataError(
                    f"{str(path)!r} has no column {self.field!r} (it has {listed}): name the one with --field"
                )
            if names.count(self.field) > 1:
                raise DataError(f"{str(path)!r} has several columns {self.field!r}: name them differently first")
            kind = table.schema_arrow.field(self.field).type
            kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
            if str(kind) not in ("string", "large_string", "string_view"):
                raise DataError(f"{str(path)!r}: its column {self.field!r} is no text but {kind}: name another")
            most = max(SURELY, RATIO * path.stat().st_size)
            groups = [table.metadata.row_group(n) for n in range(table.num_row_groups)]
            unpacked = sum(g.column(n).total_uncompressed_size for g in groups for n in range(g.num_columns))
            rows = self._rows(parquet.ParquetFile(file, read_dictionary=[self.field]), pyarrow)
            for row, content in enumerate(rows, 1):
                unpacked += len(content)
                if unpacked > most:
                    raise FileError(
                        f"{str(path)!r} unpacks to {RATIO} times its size, as hardly a text does: leave it out"
                    )
                try:
                    yield content.decode("utf-8", self._handler()), True
                except UnicodeDecodeError as error:
                    raise self._not_utf8(path, f"row {row:,}, byte {error.start:,}", error) from None
        except (pyarrow.ArrowException, IndexError) as error:  # the latter of a dictionary that lacks an entry
            reason = " ".join(str(error).split())[:120]
            raise FileError(
                f"{str(path)!r} cannot be read as Parquet ({reason}): make it anew, or leave it out"
            ) from None

    def _rows(self, table: Any, pyarrow: Any) -> Iterator[bytes]:
        """The column's texts, one by one, so that a long one of which the file says only where it recurs stays one."""
        for batch in table.iter_batches(batch_size=ROWS, columns=[self.field]):
            column = batch.column(batch.schema.names.index(self.field))
            values = getattr(column, "dictionary", column).cast(pyarrow.large_binary())
            places = column.indices.to_pylist() if hasattr(column, "indices") else range(len(column))
            for place in places:
                yield b"" if place is None else values[place].as_py() or b""

    def _whole(self, text: str, where: str) -> str:
        """The text, without halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
        half = SURROGATE.search(text)
        if half and self.errors == "strict":
            found = f"U+{ord(half[0]):04X}"
            raise DataError(f"{where}, has half of a surrogate pair, {found}: mend it, or --errors replace")
        text, replaced = SURROGATE.subn(REPLACEMENT, text) if half else (text, 0)
        self.replaced += replaced
        return text

    def _handler(self) -> str:
        """The name of the codec error handler that does what `errors` says."""
        if self.errors == "strict":
            return "strict"

        def replace(error: UnicodeError) -> tuple[str, int]:
            assert isinstance(error, UnicodeDecodeError)
            self.replaced += 1
            return REPLACEMENT, error.end

        codecs.register_error("minigpt.replace", replace)
        return "minigpt.replace"

    def _not_utf8(self, path: Path, place: str, error: UnicodeDecodeError) -> FileError:
        byte = f"{place} is 0x{error.object[error.start]:02x}"
        return FileError(f"{str(path)!r} is not UTF-8: {byte}; save it as UTF-8 first, or --errors replace")


def read_numbered_lines(file: IO[bytes], path: Path, longest: int, way_out: str) -> Iterator[tuple[int, str, bytes]]:
    """Each line that isn't blank: its number, its place for messages, and its bytes.

    Raises DataError, with the way out, for one of more than `longest` bytes.
    """
    for number, line in enumerate(iter(lambda: file.readline(longest + 1), b""), 1):
        where = f"{str(path)!r}, line {number:,}"
        if len(line) > longest:
            raise DataError(f"{where}, is longer than {longest:,} bytes: {way_out}")
        if line.strip():
            yield number, where, line

"""Documents in files: plain text, JSON and Parquet, each also compressed by gzip or Zstandard.

A file is read as a stream, so its size does not matter. A document comes in chunks; the last chunk is marked.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from minigpt.data.decompression import ALLOWED_BYTES, MAX_RATIO, open_decompressed
from minigpt.data.json_rows import read_numbered_lines, read_rows
from minigpt.data.parquet import read_text_column
from minigpt.data.text_format import UTF8, TextDecoder, TextFormat, choose_error_handler, register_error_handler
from minigpt.errors import DataError, FileError
from minigpt.system.files import explain_os_errors
from minigpt.system.text_encoding import BYTE_ORDER_MARK

MAX_LINE_BYTES = 2**25  # bytes of a line of JSON; as Python objects it can take thirty times as much memory
SURROGATE = re.compile("[\ud800-\udfff]")

_CHUNK_BYTES = 2**20
_MAX_DOCUMENT_CHARACTERS = 2**26  # between two separators; a longer stretch means that the separator is wrong
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_MISSING = object()
_DECODER = json.JSONDecoder(parse_int=lambda digits: 0)  # Python refuses very long numbers
_LINE_END = re.compile("\r\n|\r|\n")
_ANY_LINE_END = "(?>\r\n|\r|\n)"  # atomic, so that the two characters of Windows are never two line ends

Chunk = tuple[str, bool]  # a part of a document, and whether it is the last


class DocumentReader:
    """Reads the documents of files, and counts what it had to replace or leave out.

    Attributes:
        field: the field of JSON lines, or the column of Parquet, that has the text; "a.b" is the field b in a.
        separator: the text between two documents of a plain text file; None reads a file as one document. A line end in
            it stands for those of Unix, Windows and old Macs.
        format: how plain text is read. JSON and Parquet are always UTF-8, but `newlines` and `errors` hold for them.
        chunk_bytes: how many bytes of a plain text file are read at a time.
        allowed_bytes: the size that any compressed file may unpack to; a larger one may have 200 times its size.
        replaced: how many times U+FFFD was written.
        empty: how many documents had no characters and were left out.
        byte_order_marks: how many files began with one, which is left out.
        windows_files: how many files of plain text have line ends of Windows.
        position: returns how many bytes of the current file are read.
    """

    def __init__(
        self,
        field: str = "text",
        separator: str | None = None,
        text_format: TextFormat = UTF8,
        chunk_bytes: int = _CHUNK_BYTES,
        allowed_bytes: int = ALLOWED_BYTES,
    ) -> None:
        """Set how files are read."""
        self.field, self.separator, self.format = field, separator, text_format
        self.chunk_bytes, self.allowed_bytes = chunk_bytes, allowed_bytes
        self.replaced = self.empty = self.byte_order_marks = self.windows_files = 0
        self.position: Callable[[], int] = lambda: 0

    def read(self, path: Path) -> Iterator[Chunk]:
        """Read the documents of a file in order, in chunks; no document is empty.

        Raises:
            FileError: the file cannot be read; the message has the file and the place.
            DataError: a document is not in the expected format; the message has the file and the place.
        """
        with explain_os_errors("read", path), open_decompressed(path, self.allowed_bytes) as (file, name, raw):
            self.position = raw.tell
            kinds = {".jsonl": self._read_json_lines, ".ndjson": self._read_json_lines}
            kinds |= {".json": self._read_json, ".parquet": self._read_parquet}
            read = kinds.get(Path(name).suffix, self._read_text)
            has_text = False
            for chunk, is_last in read(file, path):
                has_text = has_text or bool(chunk)
                if is_last and not has_text:
                    self.empty += 1
                elif chunk or is_last:
                    yield chunk, is_last
                has_text = has_text and not is_last

    def _read_text(self, file: IO[bytes], path: Path) -> Iterator[Chunk]:
        chunks = self._decode_chunks(file, path)
        if self.separator is None:
            yield from ((chunk, False) for chunk in chunks)
            yield "", True
            return
        separator = re.compile(_ANY_LINE_END.join(map(re.escape, _LINE_END.split(self.separator))))
        rest = ""
        for chunk in _hold_back_returns(chunks):
            *documents, rest = separator.split(rest + chunk)
            yield from ((document.strip("\r\n"), True) for document in documents)
            if len(rest) > _MAX_DOCUMENT_CHARACTERS:
                most = f"{_MAX_DOCUMENT_CHARACTERS:,} characters"
                raise DataError(f"{str(path)!r} has no separator {self.separator!r} within {most}: check --separator")
        if rest.strip("\r\n"):  # nothing has to follow the last separator
            yield rest.strip("\r\n"), True

    def _decode_chunks(self, file: IO[bytes], path: Path) -> Iterator[str]:
        decoder = TextDecoder(repr(str(path)), self.format)
        while True:
            content = file.read(self.chunk_bytes)
            yield decoder.decode(content, is_last=not content)
            if not content:
                break
        self.replaced += decoder.replaced
        self.byte_order_marks += decoder.has_byte_order_mark
        self.windows_files += decoder.windows_line_ends > 0

    def _read_json_lines(self, file: IO[bytes], path: Path) -> Iterator[Chunk]:
        for number, where, line in read_numbered_lines(file, path, MAX_LINE_BYTES, "cut it into several documents"):
            try:
                text = self._decode_row(line)
                text = self._drop_byte_order_mark(text) if number == 1 else text
                entry: Any = _DECODER.decode(text)
            except UnicodeDecodeError as error:
                raise self._build_utf8_error(path, f"line {number:,}, byte {error.start:,}", error) from None
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}, is not JSON ({error}): correct it or leave it out") from None
            yield self._take_field(entry, where), True

    def _read_json(self, file: IO[bytes], path: Path) -> Iterator[Chunk]:
        for where, entry in read_rows(file, path):
            yield self._take_field(entry, where), True

    def _take_field(self, entry: Any, where: str) -> str:
        """Return the text of a row of JSON. Raise DataError, with the place, if it has none."""
        found = _get_field(entry, self.field)
        if found is _MISSING:
            names = ", ".join(map(repr, list(entry)[:8])) if isinstance(entry, dict) else "none"
            raise DataError(f"{where}, has no field {self.field!r} (it has {names}): name the one with --field")
        if not isinstance(found, str | None):
            kind = type(found).__name__
            raise DataError(f"{where}: its field {self.field!r} is not text but {kind}: name another with --field")
        return self._convert_newlines(self._replace_surrogates(found or "", where))

    def _read_parquet(self, file: IO[bytes], path: Path) -> Iterator[Chunk]:
        limit = max(self.allowed_bytes, MAX_RATIO * path.stat().st_size)
        for row, content in enumerate(read_text_column(file, path, self.field, limit), 1):
            try:
                yield self._convert_newlines(self._decode_row(content)), True
            except UnicodeDecodeError as error:
                raise self._build_utf8_error(path, f"row {row:,}, byte {error.start:,}", error) from None

    def _convert_newlines(self, text: str) -> str:
        return _LINE_END.sub("\n", text) if self.format.newlines == "unix" else text

    def _drop_byte_order_mark(self, text: str) -> str:
        self.byte_order_marks += text.startswith(BYTE_ORDER_MARK)
        return text.removeprefix(BYTE_ORDER_MARK)

    def _replace_surrogates(self, text: str, where: str) -> str:
        """Replace halves of surrogate pairs, which JSON can express and UTF-8 cannot; raise DataError if strict."""
        half = _find_surrogate(text)
        if half and self.format.errors == "strict":
            found = f"U+{ord(half[0]):04X}"
            raise DataError(f"{where}, has half a surrogate pair, {found}: correct it, or use --errors replace")
        text, replaced = SURROGATE.subn(_REPLACEMENT, text) if half else (text, 0)
        self.replaced += replaced
        return text

    def _decode_row(self, content: bytes) -> str:
        """Decode a row of JSON or Parquet. Raise UnicodeDecodeError unless invalid bytes are to be replaced."""
        register_error_handler(self)
        return content.decode("utf-8", choose_error_handler(self))

    def _build_utf8_error(self, path: Path, place: str, error: UnicodeDecodeError) -> FileError:
        byte = f"{place} is 0x{error.object[error.start]:02x}"
        return FileError(f"{str(path)!r} is not UTF-8: {byte}; save it as UTF-8 first, or use --errors replace")


def _get_field(entry: Any, field: str) -> Any:
    """Return the value of a field, or of a field in a field for a name such as "meta.text"; _MISSING if it has none."""
    if isinstance(entry, dict) and field in entry:
        return entry[field]
    for name in field.split("."):
        if not isinstance(entry, dict) or name not in entry:
            return _MISSING
        entry = entry[name]
    return entry


def _find_surrogate(text: str) -> "re.Match[str] | None":
    """Return the first half of a surrogate pair. The attempt to encode is several times as fast as a search."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return SURROGATE.search(text)
    return None


def _hold_back_returns(chunks: Iterable[str]) -> Iterator[str]:
    """Yield the chunks so that a carriage return and the line feed after it are always in one chunk."""
    held = ""
    for chunk in chunks:
        chunk = held + chunk
        held = "\r" if chunk.endswith("\r") else ""
        yield chunk.removesuffix("\r")
    yield held

"""The text column of a Parquet file, row by row, in little memory whatever the file says about itself.

A column is stored in pages, each compressed on its own, and the library unpacks a page as a whole. The file's metadata
and each page's header say how large it will be. Both are checked before the first page is unpacked.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from minigpt.data.decompression import MAX_RATIO, import_library
from minigpt.errors import DataError, FileError

_ALLOWED_PAGE_BYTES = 2**26  # a page may always unpack to this size; writers make pages of about a megabyte
_MAX_PAGE_BYTES = 2**29
_BATCH_BYTES = 2**26  # rows are read in batches that have about this size, if each row is as large as a page
_MAX_ROWS = 256  # rows of a batch
_ROW_BYTES = 16  # counted for each row beside its text: thirty bytes can hold two billion empty rows
_INT32, _BINARY, _STRUCT = 5, 8, 12  # types of Thrift's compact protocol
_FIXED_SIZES = {1: 0, 2: 0, 3: 1, 7: 8}  # true, false, a byte, a double
_VARINTS = (4, _INT32, 6)
_UNPACKED_SIZE, _PACKED_SIZE = 2, 3  # fields of a page's header
_BAD_HEADER = "a page's header is damaged"


def read_text_column(file: IO[bytes], path: Path, field: str, limit: int) -> Iterator[bytes]:
    """Read the texts of a column.

    Args:
        file: the open file, which can seek.
        path: its path, for messages.
        field: the name of the column; "a.b" is the column b in a.
        limit: the largest size in bytes that the column may unpack to.

    Yields:
        The text of each row in UTF-8, as the file has it; nothing for a missing one.

    Raises:
        DataError: there is no such column of text.
        FileError: the file is damaged, or unpacks to far more than a text would.
    """
    pyarrow, parquet = import_library("pyarrow"), import_library("pyarrow.parquet")
    try:
        guarded = _GuardedFile(file)
        table = parquet.ParquetFile(guarded, pre_buffer=False, buffer_size=2**20)
        _require_text_column(table, path, field)
        guarded.has_pages = False
        chunks = _list_chunks(table, field)
        guarded.has_pages = True
        unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
        _require_at_most(unpacked, limit, path)
        if sum(chunk.total_compressed_size for chunk in chunks) > file.seek(0, os.SEEK_END):  # they overlap
            raise _build_damage_error("the parts of its column are larger than the file", path)
        largest = max((_find_largest_page(file, chunk, path) for chunk in chunks), default=1)
        rows = max(1, min(_MAX_ROWS, _BATCH_BYTES // largest))
        if not any("DELTA_BYTE_ARRAY" in chunk.encodings for chunk in chunks):  # it cannot be read as a dictionary
            table = parquet.ParquetFile(file, read_dictionary=[field], pre_buffer=False, buffer_size=2**20)
        for content in _iterate_rows(table, field, rows):
            unpacked += len(content) + _ROW_BYTES
            _require_at_most(unpacked, limit, path)
            yield content
    except (pyarrow.ArrowException, OSError, IndexError) as error:  # IndexError: a dictionary lacks an entry
        if isinstance(error, OSError) and error.errno:  # an error of the system, not of the library
            raise
        raise _build_damage_error(" ".join(str(error).split())[:120], path) from None


def _require_text_column(table: Any, path: Path, field: str) -> None:
    """Raise DataError unless the file has one column of text with this name."""
    pyarrow = import_library("pyarrow")
    types, names = pyarrow.types, table.schema_arrow.names
    if names.count(field) > 1:
        raise DataError(f"{str(path)!r} has several columns {field!r}: name them differently first")
    kind = pyarrow.struct(list(table.schema_arrow))
    for name in _split_name(names, field):
        if not types.is_struct(kind) or name not in [each.name for each in kind]:
            listed = ", ".join(map(repr, names[:8]))
            raise DataError(f"{str(path)!r} has no column {field!r} (it has {listed}): name the one with --field")
        kind = kind.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if str(kind) not in ("string", "large_string", "string_view"):
        raise DataError(f"{str(path)!r}: its column {field!r} is not text but {kind}: name another")


def _split_name(columns: list[str], field: str) -> list[str]:
    """Return the names that lead to a column: "a.b" is the column b in a, unless there is a column "a.b"."""
    return [field] if field in columns else field.split(".")


def _list_chunks(table: Any, field: str) -> list[Any]:
    """Return the metadata of each part of the column, and of all that the library reads with it.

    If this metadata is damaged, asking for it ends the process. Reading a page raises an error instead. So a page is
    asked for first.
    """
    paths = [table.metadata.schema.column(n).path for n in range(table.metadata.num_columns)]
    columns = [n for n, path in enumerate(paths) if path == field or path.startswith(f"{field}.")]
    chunks = []
    for n in range(table.metadata.num_row_groups):
        with suppress(_PageNeededError):
            next(table.iter_batches(batch_size=1, row_groups=[n], columns=[field]), None)
        group = table.metadata.row_group(n)
        chunks += [group.column(column) for column in columns]
    return chunks


class _PageNeededError(Exception):
    """A page would be read."""


class _GuardedFile:
    """A file for pyarrow; while `has_pages` is False, a read raises _PageNeededError."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.has_pages, self.closed = file, True, False
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if not self.has_pages:
            raise _PageNeededError
        return self.file.read(size)

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Leave the file open: its owner closes it."""


def _iterate_rows(table: Any, field: str, rows: int) -> Iterator[bytes]:
    """Yield the texts of the column one by one; a repeated text of a dictionary is kept once."""
    pyarrow = import_library("pyarrow")
    for batch in table.iter_batches(batch_size=rows, columns=[field]):
        first, *inner = _split_name(batch.schema.names, field)
        column = batch.column(batch.schema.names.index(first))
        for name in inner:
            column = import_library("pyarrow.compute").struct_field(column, name)
        values = getattr(column, "dictionary", column).cast(pyarrow.large_binary())
        places = column.indices.to_pylist() if hasattr(column, "indices") else range(len(column))
        for place in places:
            yield b"" if place is None else values[place].as_py() or b""


def _require_at_most(unpacked: int, limit: int, path: Path) -> None:
    if unpacked > limit:
        raise FileError(f"{str(path)!r} unpacks to {MAX_RATIO} times its size, as hardly any text does: leave it out")


def _find_largest_page(file: IO[bytes], chunk: Any, path: Path) -> int:
    """Return the unpacked size in bytes of the largest page of a chunk, which its pages' headers say.

    Raises:
        FileError: a page unpacks to far more than a text would, or a header is damaged.
    """
    position = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
    end, largest = position + chunk.total_compressed_size, 1
    while position < end:
        file.seek(position)
        header = _read_thrift_struct(file, path)
        unpacked, packed = header.get(_UNPACKED_SIZE, -1), header.get(_PACKED_SIZE, -1)
        if unpacked < 0 or packed < 0:
            raise _build_damage_error(_BAD_HEADER, path)
        if unpacked > min(max(_ALLOWED_PAGE_BYTES, MAX_RATIO * packed), _MAX_PAGE_BYTES):
            raise FileError(
                f"{str(path)!r} has a page that unpacks from {packed:,} bytes to {unpacked:,}: "
                "write it again with smaller pages, or leave it out"
            )
        largest, position = max(largest, unpacked), file.tell() + packed
    return largest


def _read_thrift_struct(file: IO[bytes], path: Path, depth: int = 0) -> dict[int, int]:
    """Read a struct in Thrift's compact protocol; return its 32-bit integers by the number of the field."""
    found: dict[int, int] = {}
    field = 0
    while head := _read_byte(file, path):
        field = (field + (head >> 4) if head >> 4 else _unzigzag(_read_varint(file, path))) & 0xFFFF
        kind = head & 15
        if kind in _VARINTS:
            number = _read_varint(file, path)
            if kind == _INT32:
                found[field] = _unzigzag(number & 0xFFFFFFFF)
        elif kind in _FIXED_SIZES:
            file.seek(_FIXED_SIZES[kind], os.SEEK_CUR)
        elif kind == _BINARY:
            file.seek(_read_varint(file, path) & 0xFFFFFFFF, os.SEEK_CUR)
        elif kind == _STRUCT and depth < 8:
            _read_thrift_struct(file, path, depth + 1)
        else:
            raise _build_damage_error(_BAD_HEADER, path)
    return found


def _read_byte(file: IO[bytes], path: Path) -> int:
    content = file.read(1)
    if not content:
        raise _build_damage_error(_BAD_HEADER, path)
    return content[0]


def _read_varint(file: IO[bytes], path: Path) -> int:
    number = 0
    for shift in range(0, 70, 7):
        byte = _read_byte(file, path)
        number |= (byte & 127) << shift
        if byte < 128:
            return number
    raise _build_damage_error(_BAD_HEADER, path)


def _unzigzag(number: int) -> int:
    """Return a signed integer, which Thrift writes as 0, -1, 1, -2, … counted from 0."""
    return (number >> 1) ^ -(number & 1)


def _build_damage_error(reason: str, path: Path) -> FileError:
    return FileError(f"{str(path)!r} cannot be read as Parquet ({reason}): make it again, or leave it out")

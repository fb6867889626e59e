"""A Parquet file takes little memory and time, whatever its metadata and its pages say."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from minigpt.data.documents import DocumentReader
from minigpt.errors import FileError

MEGABYTE = 2**20


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Fail if Arrow has had more than `limit` bytes at once within the block."""
    before, pool = pyarrow.default_memory_pool(), pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
    pyarrow.set_memory_pool(pool)
    try:
        yield
    finally:
        pyarrow.set_memory_pool(before)
    assert pool.max_memory() <= limit


def as_parquet(texts: Any, **options: Any) -> bytes:
    written = io.BytesIO()
    table = pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())})
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False} | options
    pyarrow.parquet.write_table(table, written, **options)
    return written.getvalue()


def encode_varint(number: int, size: int) -> bytes:
    """Return a positive number as Thrift writes it, in `size` bytes: leading zeros are allowed."""
    digits = [2 * number >> 7 * i & 127 for i in range(size)]
    return bytes([*(digit | 128 for digit in digits[:-1]), digits[-1]])


def read(path: Path, content: bytes, **options: Any) -> list[str]:
    path.write_bytes(content)
    return [text for text, _ in DocumentReader(**options).read(path)]


def test_metadata_that_announce_too_much_are_refused_before_a_page_is_unpacked(tmp_path: Path) -> None:
    content = as_parquet(["a" * 8 * MEGABYTE] * 4, row_group_size=1)
    with limited_memory(MEGABYTE), pytest.raises(FileError, match="unpacks to 200 times its size"):
        read(tmp_path / "a.parquet", content, allowed_bytes=16 * MEGABYTE)


def test_a_page_larger_than_its_metadata_say_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    content = as_parquet(["a" * 65 * MEGABYTE])
    chunk = pyarrow.parquet.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0)
    told = encode_varint(chunk.total_uncompressed_size, 4)
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    assert told in content[start:]
    content = content[:start] + content[start:].replace(told, encode_varint(100, 4))
    with limited_memory(MEGABYTE), pytest.raises(FileError, match=r"a page that unpacks from 2,\d+ bytes to 68,157,"):
        read(tmp_path / "a.parquet", content)


def test_texts_that_repeat_the_one_before_are_read_in_small_batches(tmp_path: Path) -> None:
    stories = [f"{'once upon a time ' * 9}{n % 7}" for n in range(2000)]
    assert read(tmp_path / "a.parquet", as_parquet(stories, column_encoding="DELTA_BYTE_ARRAY")) == stories
    content = as_parquet(["a" * 8 * MEGABYTE] * 40, column_encoding="DELTA_BYTE_ARRAY")
    assert len(content) < 1000  # as Parquet has the long text once
    with limited_memory(200 * MEGABYTE), pytest.raises(FileError, match="unpacks to 200 times its size"):
        read(tmp_path / "a.parquet", content, allowed_bytes=20 * MEGABYTE)


def test_endless_empty_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="unpacks to 200 times its size"):
        read(tmp_path / "a.parquet", as_parquet([None] * 100_000), allowed_bytes=MEGABYTE)


def test_metadata_that_name_the_same_pages_again_and_again_are_refused(tmp_path: Path) -> None:
    content = as_parquet(["once upon a time " * 100], compression="none")
    once = pyarrow.parquet.ParquetFile(io.BytesIO(content)).metadata
    often = pyarrow.parquet.ParquetFile(io.BytesIO(content)).metadata
    for _ in range(100):
        often.append_row_groups(once)
    often.write_metadata_file(tmp_path / "footer")
    pages = content[: len(content) - 8 - once.serialized_size]
    with pytest.raises(FileError, match="the parts of its column are larger than the file"):
        read(tmp_path / "a.parquet", pages + (tmp_path / "footer").read_bytes()[4:])


def test_a_page_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    content = as_parquet(["once", "upon"])
    for header in (b"\x19", b"\x00", b"\xff" * 20, b"\x15\x00\x15\x01\x15\x10\x00", b"\x1c" * 20):
        with pytest.raises(FileError, match="a page's header is damaged"):
            read(tmp_path / "a.parquet", content[:4] + header + content[4 + len(header) :])


def test_metadata_that_end_the_library_are_refused(command: Callable, tmp_path: Path) -> None:
    content = as_parquet(["once", None, "upon"], row_group_size=1)
    optional = b"\x25\x02\x18\x04text"  # of the column; now it has missing rows and must not have any
    assert content.count(optional) == 1
    (tmp_path / "a.parquet").write_bytes(content.replace(optional, b"\x25\x00\x18\x04text"))
    done = command("data", "prepare", "a.parquet", "--out", "data")
    assert done.returncode == 2
    assert "cannot be read as Parquet (Definition level" in done.stderr

"""Documents are read from files of every kind; an error names the file and the place."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from minigpt.data.documents import DocumentReader
from minigpt.data.file_discovery import find_files
from minigpt.data.text_format import TextFormat
from minigpt.errors import DataError, FileError

TEXTS = ["The first.\n", "Zwölf Boxkämpfer 漢字 👍", "a\nb\n\nc"]


def read(path: Path, reader: DocumentReader | None = None) -> list[str]:
    """Every document of a file, whole."""
    found, text = [], ""
    for chunk, last in (reader or DocumentReader()).read(path):
        text += chunk
        if last:
            found.append(text)
            text = ""
    assert not text
    return found


def as_lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()


def as_parquet(texts: list[str]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(len(texts))), "text": texts}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".md", ".jsonl", ".NDJSON", ".parquet"])
def test_documents_are_read_from_every_format_compressed_or_not(kind: str, ending: str, tmp_path: Path) -> None:
    written = {".jsonl": as_lines, ".NDJSON": as_lines, ".parquet": as_parquet}.get(
        kind, lambda texts: "".join(texts).encode()
    )(TEXTS)
    packed = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending](written)
    path = tmp_path / f"texts{kind}{ending}"
    path.write_bytes(packed)
    assert read(path) == (["".join(TEXTS)] if kind in (".txt", ".md") else TEXTS)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_files_of_several_frames_are_read_whole(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / ("a.txt.gz" if pack is gzip.compress else "a.txt.zst")
    path.write_bytes(pack(b"one ") + pack("zwölf ".encode() * 100_000) + pack(b"end"))
    assert read(path) == ["one " + "zwölf " * 100_000 + "end"]


def test_a_separator_ends_a_document(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("One.\nTwo.\n<|endoftext|>\n\nThree.\n<|endoftext|><|endoftext|>Four<|endoftext|>\n")
    for chunk in (1, 2, 7, 1000):  # a separator may be in two chunks
        reader = DocumentReader(separator="<|endoftext|>", chunk_bytes=chunk)
        assert read(path, reader) == ["One.\nTwo.", "Three.", "Four"]
        assert reader.empty == 1


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["\n\n", "\r\n\r\n", "\n---\n"])
def test_a_line_end_of_a_separator_stands_for_that_of_any_system(separator: str, line_end: str, tmp_path: Path) -> None:
    stories = ["One.\nTwo.", "Three.", "Four\nfive\nsix."]
    written = separator.replace("\r", "").join(stories).replace("\n", line_end).encode()
    (tmp_path / "a.txt").write_bytes(written)
    for chunk in (1, 2, 3, 1000):
        found = read(tmp_path / "a.txt", DocumentReader(separator=separator, chunk_bytes=chunk))
        assert found == [story.replace("\n", line_end) for story in stories]


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_bytes_that_are_not_utf8_are_refused_or_replaced_and_counted(chunk: int, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    content = "né".encode() + b"\xff good \xe6\xbc x \xf0\x9f"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"bad\.txt' is not UTF-8: byte 3 is 0xff; .*errors='replace'"):
        read(path, DocumentReader(chunk_bytes=chunk))
    reader = DocumentReader(text_format=TextFormat(errors="replace"), chunk_bytes=chunk)
    assert read(path, reader) == [content.decode("utf-8", "replace")]
    assert reader.replaced == 3


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", "line 2, is not JSON"),
        ('{"body": "x", "id": 3}', r"line 2, has no field 'text' \(it has 'body', 'id'\): name the one with --field"),
        ("[1]", "line 2, has no field 'text'"),
        ('{"text": 3}', "line 2: its field 'text' is not text but int"),
        ('{"text": "\\ud800"}', r"line 2, has half a surrogate pair, U\+D800"),
        ("[" * 100_000, "line 2, is not JSON"),
    ],
)
def test_a_line_that_is_not_a_document_is_refused_by_number(line: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl', {error}"):
        read(path)


def test_errors_replace_replaces_halves_of_surrogate_pairs_and_bytes_in_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a\\ud800b"}\n{"text": "c\xffd"}\n')
    reader = DocumentReader(text_format=TextFormat(errors="replace"))
    assert read(path, reader) == ["a\ufffdb", "c\ufffdd"]
    assert reader.replaced == 2
    path.write_bytes(b'{"text": "fine"}\n{"text": "c\xffd"}\n')
    with pytest.raises(FileError, match="line 2, byte 11 is 0xff"):
        read(path)


def test_empty_documents_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(["", "one", ""]) + b"\n\n")
    reader = DocumentReader()
    assert read(path, reader) == ["one"]
    assert reader.empty == 2
    (tmp_path / "empty.txt").touch()
    assert read(tmp_path / "empty.txt", reader) == []
    assert reader.empty == 3


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_compressed_file_that_is_cut_short_or_altered_is_refused(ending: str, tmp_path: Path) -> None:
    pack = gzip.compress if ending == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    whole = pack("".join(map(chr, range(32, 3000))).encode() * 3)
    path = tmp_path / f"a.txt.{ending}"
    altered = whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]
    for content in (whole[:-3], whole[: len(whole) // 2], b"no such thing", altered):
        path.write_bytes(content)
        with pytest.raises(FileError, match=rf"a\.txt\.{ending}' is damaged or cut short"):
            read(path)


def test_a_parquet_file_without_the_text_column_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(as_parquet(TEXTS))
    with pytest.raises(DataError, match=r"has no column 'body' \(it has 'id', 'text'\): name the one with --field"):
        read(path, DocumentReader(field="body"))
    with pytest.raises(DataError, match="its column 'id' is not text but int64"):
        read(path, DocumentReader(field="id"))
    path.write_bytes(as_parquet(TEXTS)[:-20])
    with pytest.raises(FileError, match="cannot be read as Parquet"):
        read(path)


def test_binary_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text\0")
    with pytest.raises(FileError, match="is binary, not text: byte 4 is zero"):
        read(tmp_path / "a.txt")


def test_each_file_is_found_once_and_in_order(tmp_path: Path) -> None:
    for name in (
        "b.txt",
        "a.md",
        "sub/c.jsonl.gz",
        "sub/d.parquet",
        ".hidden/e.txt",
        "f.py",
        "sub/.g.txt",
        "h.txt.zst",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_files([tmp_path, tmp_path / "b.txt"])
    names = [str(path.relative_to(tmp_path)) for path in found.files]
    assert names == ["a.md", "b.txt", "h.txt.zst", "sub/c.jsonl.gz", "sub/d.parquet"]
    assert found.others == 1
    assert find_files([tmp_path / "*.py"]).files == [tmp_path / "f.py"]
    assert find_files([str(tmp_path / "**" / "*.txt")]).files == [tmp_path / "b.txt"]


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()
    for path, error in (
        ("missing.txt", "there is no such file or folder"),
        ("*.txt.gz", "no file fits the pattern"),
        ("folder", r"has no \.txt, \.md, \.jsonl, \.ndjson, \.parquet in it"),
        ("empty.txt", "is empty: leave it out"),
    ):
        with pytest.raises(FileError, match=error):
            find_files([tmp_path / path])


def test_a_byte_order_mark_and_large_numbers_in_json_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + '{"text": "one", "id": ' + "9" * 5000 + '}\n{"text": null}\n{"text": "two"}\n')
    reader = DocumentReader()
    assert read(path, reader) == ["one", "two"]
    assert reader.empty == 1


def test_a_field_in_a_field_is_read(tmp_path: Path) -> None:
    rows = [{"a": {"b": text, "c": 1}, "a.c": text} for text in TEXTS]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows, {"a": None}]), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        for field in ("a.b", "a.c"):  # the second is a name of its own
            assert read(tmp_path / name, DocumentReader(field=field)) == TEXTS
        for field in ("a.d", "a.b.c", "b", "."):
            with pytest.raises(DataError, match=rf"has no (field|column) '{field}' \(it has 'a', 'a.c'\)"):
                read(tmp_path / name, DocumentReader(field=field))
        with pytest.raises(DataError, match=r"is not text but (dict|struct)"):
            read(tmp_path / name, DocumentReader(field="a"))


@pytest.mark.parametrize("chunk", [1, 2, 1000])
def test_a_byte_order_mark_before_a_text_is_left_out_and_counted(chunk: int, tmp_path: Path) -> None:
    reader = DocumentReader(chunk_bytes=chunk)
    for text in ("\ufeffone \ufeff", "two", "\ufeff"):
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        assert read(tmp_path / "a.txt", reader) == [text.removeprefix("\ufeff")][: len(text) > 1]
    assert (reader.byte_order_marks, reader.empty) == (2, 1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("once upon a time".encode(encoding))
    for errors in ("strict", "replace"):
        with pytest.raises(FileError, match="is UTF-16, not UTF-8: add encoding='utf-16'"):
            read(tmp_path / "a.txt", DocumentReader(text_format=TextFormat(errors=errors)))


def test_every_type_of_text_column_in_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = pyarrow.array(TEXTS)

    def write(arrays: list[pyarrow.Array], names: list[str]) -> None:
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names), path)

    write([texts, texts], ["text", "text"])
    with pytest.raises(DataError, match="has several columns 'text'"):
        read(path)
    write([pyarrow.array([{"b": "x"}] * len(TEXTS)), texts], ["a", "a.b"])
    assert read(path, DocumentReader(field="a.b")) == TEXTS
    for kind in (pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.string_view()):
        write([texts.cast(kind)], ["text"])
        assert read(path) == TEXTS
    broken = pyarrow.array([b"fine", b"b\xff", None, b"\xe6"], pyarrow.binary()).view(pyarrow.string())
    write([broken], ["text"])
    with pytest.raises(FileError, match="row 2, byte 1 is 0xff"):
        read(path)
    reader = DocumentReader(text_format=TextFormat(errors="replace"))
    assert read(path, reader) == ["fine", "b\ufffd", "\ufffd"]
    assert (reader.replaced, reader.empty) == (2, 1)


def test_a_pattern_matches_folders_but_not_pipes_or_circular_links(tmp_path: Path) -> None:
    (tmp_path / "x.txt").mkdir()
    (tmp_path / "x.txt" / "inner.JSONL").write_text("{}")
    assert find_files([str(tmp_path / "x*")]).files == [tmp_path / "x.txt" / "inner.JSONL"]
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(FileError, match="is a pipe or a device, and files are read more than once"):
        find_files([tmp_path / "pipe.txt"])
    (tmp_path / "loop.md").symlink_to("loop.md")
    with pytest.raises(FileError, match="its symbolic links lead in a circle"):
        find_files([str(tmp_path / "*.md")])
    with pytest.raises(FileError, match="a path is empty"):
        find_files([""])


def test_links_in_a_folder_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("x")
    (tmp_path / "beside.txt").write_text("x")
    (tmp_path / "corpus" / "sub").mkdir(parents=True)
    (tmp_path / "corpus" / "a.txt").write_text("x")
    (tmp_path / "corpus" / "linked").symlink_to("../elsewhere")
    (tmp_path / "corpus" / "file.md").symlink_to("../elsewhere/b.txt")
    for circle in ("up", "sub/root", "sub/self"):
        (tmp_path / "corpus" / circle).symlink_to({"up": "..", "sub/root": "..", "sub/self": "."}[circle])
    found = find_files([tmp_path / "corpus"])
    assert [str(path.relative_to(tmp_path / "corpus")) for path in found.files] == ["a.txt", "file.md"]
    (tmp_path / "corpus" / "file.md").unlink()
    found = find_files([tmp_path / "corpus"])
    assert [str(path.relative_to(tmp_path / "corpus")) for path in found.files] == ["a.txt", "linked/b.txt"]
    assert found.dead_links == 0
    for pattern in ("corpus/**/*.txt", "cor*/**", "**/**/*.txt"):  # the library goes in circles forty times
        files = [str(path.relative_to(tmp_path)) for path in find_files([str(tmp_path / pattern)]).files]
        assert [file for file in files if file != "beside.txt"] == ["corpus/a.txt", "corpus/linked/b.txt"]


def test_dead_links_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "dead.txt").symlink_to("nowhere.txt")
    (tmp_path / "round.txt").symlink_to("round.txt")
    for path in (tmp_path, tmp_path / "*.txt", tmp_path / "**" / "*.txt"):
        found = find_files([path])
        assert (found.files, found.dead_links, found.others) == ([tmp_path / "a.txt"], 2, 0)
    with pytest.raises(FileError, match="there is no such file"):
        find_files([tmp_path / "dead.txt"])


def test_a_large_window_of_zstandard_is_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, format=zstandard.FORMAT_ZSTD1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(packer.compress(b"long ago ") + packer.flush())
    assert read(tmp_path / "a.txt.zst") == ["long ago "]

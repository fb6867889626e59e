"""Rows of JSON are read from lines and from an array alike; what is not JSON is refused by its place."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from minigpt.data.json_rows import MAX_ARRAY_BYTES, iterate_json_rows, read_first_row
from minigpt.errors import DataError, FileError

ROWS = [{"instruction": f"say {n}", "output": "漢字"} for n in range(5)]
AS_LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
WAYS = {
    "rows.jsonl": AS_LINES,
    "ROWS.JSONL": AS_LINES,
    "windows.ndjson": "\ufeff" + AS_LINES.replace("\n", "\r\n"),
    "array.json": json.dumps(ROWS),
    "pretty.json": "\ufeff \r\n" + json.dumps(ROWS, indent=1, ensure_ascii=False).replace("\n", "\r\n") + "\r\n",
}


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", WAYS)
def test_lines_and_arrays_have_the_same_rows(name: str, ending: str, tmp_path: Path) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    (tmp_path / (name + ending)).write_bytes(pack(WAYS[name].encode()))
    assert [row for _, row in iterate_json_rows(tmp_path / (name + ending), "examples")] == ROWS
    assert read_first_row(tmp_path / (name + ending)) == ROWS[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "row 2, is not JSON"),
        ("[1, ]", "row 2, is not JSON"),
        ("[,1]", "row 1, is not JSON"),
        ("[1 2]", "row 1, is not JSON"),
        ("[1]\n[2]", "row 1, is not JSON"),
        ("[1, {]", "row 2, is not JSON"),
        ("[" * 9999, "row 1, is not JSON"),
        ("[", "row 1, is not JSON"),
        ('["\udcff"]', "row 1, is not JSON in UTF-8"),
        ("[" + " " * MAX_ARRAY_BYTES + "]", "is an array of more than 33,554,432 bytes: write a row in each line"),
    ],
)
def test_an_array_that_is_damaged_is_refused_by_its_row(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        list(iterate_json_rows(tmp_path / "a.json", "examples"))


@pytest.mark.parametrize("content", ["", "\n", "[]", " [ ]\n"])
def test_a_file_without_rows_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(FileError, match="has no examples"):
        list(iterate_json_rows(tmp_path / "a.json", "examples"))

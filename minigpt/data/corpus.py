"""The text to train on: a file, prepared data, or Tiny Shakespeare."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.data import tiny_shakespeare
from minigpt.data.decompression import COMPRESSIONS, open_decompressed
from minigpt.data.json_rows import JSON_SUFFIXES, get_suffix
from minigpt.data.prepared_data import PreparedData, is_prepared
from minigpt.errors import FileError
from minigpt.system.files import explain_os_errors, read_text
from minigpt.system.text_encoding import decode_text, drop_byte_order_mark

MAX_TEXT_BYTES = 512 * 2**20  # bytes; the text, its ids and the model share the machine's memory
_ALLOWED_BYTES = 2**26  # that a compressed text may unpack to, whatever the ratio
TINY_SHAKESPEARE = "tinyshakespeare"
_DEFAULT_FILE = Path("input.txt")


@dataclass(frozen=True)
class Corpus:
    """A text and where it came from.

    Attributes:
        text: the text, with its line ends unchanged.
        source: a description of where it came from, for messages.
        path: the path of its file as the user named it, or None for Tiny Shakespeare.
        sha256: the SHA-256 of the text in UTF-8, in hexadecimal.
    """

    text: str = field(repr=False)
    source: str
    path: str | None
    sha256: str

    @property
    def characters(self) -> int:
        """The number of characters in the text."""
        return len(self.text)


def find_data(data: str | Path | None, say: Callable[[str], None] = lambda message: None) -> Corpus | PreparedData:
    """Open what to train on: prepared data if `data` names some, else a text as in `find_corpus`."""
    return PreparedData(data) if data is not None and is_prepared(data) else find_corpus(data, say)


def find_corpus(
    data: str | Path | None = None,
    say: Callable[[str], None] = lambda message: None,
    sources: Sequence[tiny_shakespeare.Source] = tiny_shakespeare.SOURCES,
) -> Corpus:
    """Find the text to train on.

    Args:
        data: the path of a file, perhaps compressed as .gz or .zst, or "tinyshakespeare" where no file has that name.
            None stands for input.txt in the current folder if it exists, else Tiny Shakespeare.
        say: is called with a message before a download, and for a file of JSON.
        sources: where to get Tiny Shakespeare.

    Raises:
        FileError: the file cannot be read, or is not text.
        DataError: Tiny Shakespeare is not in the cache and cannot be downloaded.
    """
    if data is None and _DEFAULT_FILE.exists():
        data = _DEFAULT_FILE
    if data is None or (str(data) == TINY_SHAKESPEARE and not Path(data).exists()):
        return load_tiny_shakespeare(say, sources)
    with explain_os_errors("read", data):
        is_folder = Path(data).is_dir()
    if is_folder:
        if is_prepared(data):
            raise FileError(f"{str(data)!r} was made by minigpt data prepare, and this needs a text: name a file")
        raise FileError(f"{str(data)!r} is a folder: name a file, or prepare it: minigpt data prepare")
    text = _read_compressed_text(Path(data)) if Path(data).suffix.lower() in COMPRESSIONS else None
    text = read_text(data, MAX_TEXT_BYTES, allow_pipe=True) if text is None else text
    if get_suffix(data) in JSON_SUFFIXES:
        say(f"{str(data)!r} is read as plain text: minigpt data prepare --field NAME reads the texts in it")
    return Corpus(text, f"the file {data}", str(data), compute_sha256(text.encode()))


def _read_compressed_text(path: Path) -> str:
    """Read a text that is compressed by gzip or Zstandard. Raise FileError, also for more than MAX_TEXT_BYTES."""
    with explain_os_errors("read", path), open_decompressed(path, _ALLOWED_BYTES) as (file, _, _):
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise FileError(
            f"{str(path)!r} unpacks to more than {MAX_TEXT_BYTES:,} bytes: prepare it, minigpt data prepare"
        )
    return drop_byte_order_mark(decode_text(content, repr(str(path))), repr(str(path)))


def load_tiny_shakespeare(
    say: Callable[[str], None] = lambda message: None,
    sources: Sequence[tiny_shakespeare.Source] = tiny_shakespeare.SOURCES,
) -> Corpus:
    """Load Tiny Shakespeare from the user's cache, or download it. Raise DataError if that fails."""
    content, source = tiny_shakespeare.load(say, sources)
    return Corpus(content.decode(), source, None, compute_sha256(content))


def compute_sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()

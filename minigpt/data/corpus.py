"""The text to train on: files, prepared data, or Tiny Shakespeare."""

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.config import DataPath
from minigpt.data import tiny_shakespeare
from minigpt.data.decompression import COMPRESSIONS, open_decompressed
from minigpt.data.json_rows import JSON_SUFFIXES, get_suffix
from minigpt.data.prepared_data import PreparedData, is_prepared
from minigpt.data.text_format import UTF8, TextDecoder, TextFormat
from minigpt.errors import DataError, FileError
from minigpt.system.advice import format_setting
from minigpt.system.files import explain_os_errors, read_bytes
from minigpt.system.warn_once import warn_once

MAX_TEXT_BYTES = 512 * 2**20  # bytes; the text, its ids and the model share the machine's memory
_ALLOWED_BYTES = 2**26  # a compressed text may always unpack to this size
TINY_SHAKESPEARE = "tinyshakespeare"
_DEFAULT_FILE = Path("input.txt")


@dataclass(frozen=True)
class Corpus:
    """A text and where it came from.

    Attributes:
        text: the text, with its line ends unchanged.
        source: a description of where it came from, for messages.
        paths: the paths of its files as the user named them; empty for Tiny Shakespeare.
        sha256: the SHA-256 of the text in UTF-8, in hexadecimal.
    """

    text: str = field(repr=False)
    source: str
    paths: tuple[str, ...]
    sha256: str

    @property
    def characters(self) -> int:
        """The number of characters in the text."""
        return len(self.text)


def find_data(
    data: DataPath, say: Callable[[str], None] = lambda message: None, text_format: TextFormat = UTF8
) -> Corpus | PreparedData:
    """Open what to train on: prepared data if `data` names some, else a text as in `find_corpus`."""
    folder = data[0] if isinstance(data, Sequence) and not isinstance(data, str) and len(data) == 1 else data
    if isinstance(folder, str | Path) and is_prepared(folder):
        return PreparedData(folder)
    return find_corpus(data, say, text_format=text_format)


def find_corpus(
    data: DataPath = None,
    say: Callable[[str], None] = lambda message: None,
    sources: Sequence[tiny_shakespeare.Source] = tiny_shakespeare.SOURCES,
    text_format: TextFormat = UTF8,
) -> Corpus:
    """Find the text to train on.

    Args:
        data: the path of a file, perhaps compressed as .gz or .zst, or several of them, which are read in this order
            as one text; or "tinyshakespeare" where no file has that name. None stands for input.txt in the current
            folder if it exists, else Tiny Shakespeare.
        say: is called with a message before a download, and about what is unusual in a file.
        sources: where to get Tiny Shakespeare.
        text_format: how the files are read.

    Raises:
        FileError: a file cannot be read, or is not text.
        DataError: a file holds JSON; or Tiny Shakespeare is not in the cache and cannot be downloaded.
    """
    if data is None and _DEFAULT_FILE.exists():
        data = _DEFAULT_FILE
    if data is None or (str(data) == TINY_SHAKESPEARE and not Path(TINY_SHAKESPEARE).exists()):
        return load_tiny_shakespeare(say, sources)
    files = [data] if isinstance(data, str | Path) else list(data)
    texts: list[str] = []
    for file in files:
        _require_text_file(file)
        texts.append(_read_file(Path(file), text_format, say))
        if sum(map(len, texts)) > MAX_TEXT_BYTES:
            raise FileError(
                f"the files have more than {MAX_TEXT_BYTES:,} characters: prepare them, minigpt data prepare"
            )
    names = tuple(map(str, files))
    text = _join(texts)
    source = f"the file {names[0]}" if len(names) == 1 else f"the {len(names):,} files from {names[0]} to {names[-1]}"
    return Corpus(text, source, names, compute_sha256(text.encode()))


def _require_text_file(path: str | Path) -> None:
    """Raise FileError for a folder, and DataError for a file of JSON."""
    name = repr(str(path))
    with explain_os_errors("read", path):
        is_folder = Path(path).is_dir()
    if is_folder:
        if is_prepared(path):
            raise FileError(f"{name} was made by minigpt data prepare, and this needs a text: name a file")
        raise FileError(f"{name} is a folder: name a file, or prepare it: minigpt data prepare")
    if get_suffix(path) in JSON_SUFFIXES:
        word = shlex.quote(str(path))
        learn = f"minigpt finetune RUN --data {word} learns its instructions and answers"
        extract = f"minigpt data prepare {word} --field NAME --out data takes the texts out of it"
        raise DataError(f"{name} is JSON, not a text: {learn}; {extract}; to learn JSON itself, name a copy in .txt")


def _read_file(path: Path, text_format: TextFormat, say: Callable[[str], None]) -> str:
    """Read a text file, and say what is unusual in it. Raise FileError, also for more than MAX_TEXT_BYTES."""
    decoder = TextDecoder(repr(str(path)), text_format)
    is_compressed = path.suffix.lower() in COMPRESSIONS
    content = _read_compressed(path) if is_compressed else read_bytes(path, MAX_TEXT_BYTES, allow_pipe=True)
    text = decoder.decode(content, is_last=True)
    if decoder.has_byte_order_mark:
        warn_once(f"{decoder.name} begins with a byte order mark (U+FEFF), which is left out")
    if decoder.windows_line_ends and text_format.newlines == "keep":
        found = f"{decoder.name} has {decoder.windows_line_ends:,} line ends of Windows (\\r\\n), which are kept"
        say(f"{found}: {format_setting('newlines', 'unix')} reads each as \\n")
    if decoder.replaced:
        say(f"{decoder.replaced:,} places in {decoder.name} are not {text_format.encoding} and became U+FFFD")
    return text


def _read_compressed(path: Path) -> bytes:
    """Read a file that is compressed by gzip or Zstandard. Raise FileError, also for more than MAX_TEXT_BYTES."""
    with explain_os_errors("read", path), open_decompressed(path, _ALLOWED_BYTES) as (file, _, _):
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise FileError(
            f"{str(path)!r} unpacks to more than {MAX_TEXT_BYTES:,} bytes: prepare it, minigpt data prepare"
        )
    return content


def _join(texts: Sequence[str]) -> str:
    """Return texts as one. A text that does not end a line gets a line feed before the next."""
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts[:-1]) + texts[-1]


def load_tiny_shakespeare(
    say: Callable[[str], None] = lambda message: None,
    sources: Sequence[tiny_shakespeare.Source] = tiny_shakespeare.SOURCES,
) -> Corpus:
    """Load Tiny Shakespeare from the user's cache, or download it. Raise DataError if that fails."""
    content, source = tiny_shakespeare.load(say, sources)
    return Corpus(content.decode(), source, (), compute_sha256(content))


def compute_sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()

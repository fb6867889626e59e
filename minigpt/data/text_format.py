"""How the bytes of a text file become characters: its encoding, its line ends, and bytes that are not text."""

import codecs
import io
from dataclasses import dataclass
from typing import Any, Self

from minigpt.config import Errors, Newlines, TrainingConfig
from minigpt.config_fields import require_encoding
from minigpt.errors import FileError
from minigpt.system.advice import format_setting
from minigpt.system.text_encoding import BYTE_ORDER_MARK, require_no_utf16

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HANDLER = "minigpt.replace"


@dataclass(frozen=True)
class TextFormat:
    """How a text file is read.

    Attributes:
        encoding: the name of its encoding, as Python knows it.
        newlines: "keep" leaves line ends as they are; "unix" reads those of Windows and old Macs as a line feed.
        errors: what to do about bytes that are not text: "strict" raises an error, "replace" writes U+FFFD.

    Raises:
        ConfigError: Python does not know the encoding.
    """

    encoding: str = TrainingConfig.encoding
    newlines: Newlines = TrainingConfig.newlines
    errors: Errors = TrainingConfig.errors

    def __post_init__(self) -> None:
        require_encoding(self.encoding)

    @classmethod
    def from_settings(cls, training: TrainingConfig) -> Self:
        """Return the text format of a run's settings."""
        return cls(training.encoding, training.newlines, training.errors)


UTF8 = TextFormat()


class TextDecoder:
    """Decodes one file, in one or more chunks, and counts what a message should say about it.

    Attributes:
        replaced: how many times U+FFFD was written.
        windows_line_ends: how many line ends of Windows the file has.
        has_byte_order_mark: whether the file begins with one, which is left out.
    """

    def __init__(self, name: str, text_format: TextFormat) -> None:
        """Prepare to decode a file.

        Args:
            name: the file, for messages.
            text_format: how it is read.
        """
        self.name, self.format = name, text_format
        self.replaced = self.windows_line_ends = 0
        self.has_byte_order_mark = False
        self._is_utf8 = codecs.lookup(text_format.encoding).name == "utf-8"
        self._decoder = codecs.getincrementaldecoder(text_format.encoding)(choose_error_handler(self))
        self._newlines = io.IncrementalNewlineDecoder(None, translate=True)
        self._read, self._is_start = 0, True

    def decode(self, content: bytes, is_last: bool) -> str:
        """Decode a chunk.

        Args:
            content: the bytes that follow those of the last call.
            is_last: whether the file ends with them.

        Raises:
            FileError: the bytes are not text in this encoding.
        """
        if self._is_utf8:
            self._require_utf8(content)
        held = len(self._decoder.getstate()[0])  # bytes of a character that continues in this chunk
        register_error_handler(self)
        try:
            text = self._decoder.decode(content, is_last)
        except UnicodeDecodeError as error:
            byte = f"byte {self._read - held + error.start:,} is 0x{error.object[error.start]:02x}"
            raise FileError(f"{self._describe_wrong_encoding()}: {byte}; {suggest_encoding()}") from None
        except UnicodeError as error:  # UTF-16 without its mark, for example
            raise FileError(f"{self._describe_wrong_encoding()}: {error}") from None
        self._read += len(content)
        return self._convert(text, is_last)

    def _describe_wrong_encoding(self) -> str:
        return f"{self.name} is not {self.format.encoding.upper()}"

    def _require_utf8(self, content: bytes) -> None:
        """Raise FileError for bytes of UTF-16, or of a binary file."""
        if not self._read:
            require_no_utf16(content, self.name, f"add {format_setting('encoding', 'utf-16')}")
        zero = content.find(0)
        if zero >= 0:
            raise FileError(f"{self.name} is binary, not text: byte {self._read + zero:,} is zero; leave it out")

    def _convert(self, text: str, is_last: bool) -> str:
        """Leave out the byte order mark, count and perhaps convert line ends. Raise FileError for a zero character."""
        if "\0" in text:
            raise FileError(f"{self._describe_wrong_encoding()}, or is binary: it has U+0000; {suggest_encoding()}")
        if self._is_start and text:
            self.has_byte_order_mark, self._is_start = text.startswith(BYTE_ORDER_MARK), False
            text = text.removeprefix(BYTE_ORDER_MARK)
        if "\r" in text:  # far faster than a search for two characters
            self.windows_line_ends += text.count("\r\n")
        return self._newlines.decode(text, final=is_last) if self.format.newlines == "unix" else text


def suggest_encoding() -> str:
    """Return the way out for a text in another encoding."""
    encoding, errors = format_setting("encoding", "cp1252"), format_setting("errors", "replace")
    return f"name its encoding, such as {encoding} (Western Europe) or cp932 (Japan), or use {errors}"


def choose_error_handler(counter: Any) -> str:
    """Return the name of the codec error handler for `counter.format.errors`; see `register_error_handler`."""
    return "strict" if counter.format.errors == "strict" else _HANDLER


def register_error_handler(counter: Any) -> None:
    """Let the error handler that writes U+FFFD count in `counter.replaced`, until another call changes it."""
    if counter.format.errors == "strict":
        return

    def replace(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        counter.replaced += 1
        return _REPLACEMENT, error.end

    codecs.register_error(_HANDLER, replace)

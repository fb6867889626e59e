"""The texts that readers of the page have uploaded: files in the folder `playground/texts` of the served runs."""

import contextlib
import hashlib
import itertools
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minigpt.system.files import create_folder, explain_os_errors, flush_folder
from minigpt.web.api_errors import ApiError
from minigpt.web.folder_names import PLAYGROUND, check_folder_name

SUFFIX = ".txt"


@dataclass(frozen=True)
class StoredText:
    """A text.

    Attributes:
        name: its name in the API.
        path: its file.
        bytes: the size of the file.
    """

    name: str
    path: Path
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return what docs/web_api.md says of a text."""
        return {"name": self.name, "bytes": self.bytes}


class StoredTexts:
    """The folder of texts. A text is never replaced: the same name with another content gets a number."""

    def __init__(self, runs: Path, limit: int) -> None:
        """Name the folder.

        Args:
            runs: the folder of the served runs.
            limit: bytes of all texts together.
        """
        self.folder, self._limit = runs / PLAYGROUND / "texts", limit

    def list_texts(self) -> list[StoredText]:
        """Return all texts in the order of their names."""
        with explain_os_errors("look for texts in", self.folder):
            files = sorted(self.folder.glob(f"[!.]*{SUFFIX}"))
            return [self._describe(file) for file in files if file.is_file() and not file.is_symlink()]

    def find(self, name: str) -> StoredText:
        """Return the text of a name. Raise ApiError if there is none."""
        text = next((each for each in self.list_texts() if each.name == name), None)
        if text is None:
            raise ApiError(404, f"there is no text {name[:100]!r}: GET /api/v1/texts lists them", "text")
        return text

    def require_space(self, size: int) -> None:
        """Check that a text of some bytes has space beside the others. Raise ApiError if it has none."""
        stored = sum(text.bytes for text in self.list_texts())
        if stored + size > self._limit:
            raise ApiError(
                507,
                f"the uploaded texts have {stored:,} bytes, and their limit is {self._limit:,}: delete some of them in "
                f"{str(self.folder)!r}",
                "text",
                "texts_full",
            )

    def _describe(self, file: Path) -> StoredText:
        return StoredText(file.name.removesuffix(SUFFIX), file, file.stat().st_size)


class TextUpload:
    """A text while it arrives. Its parts go to a file that has no name yet; threads may call its methods in turn."""

    def __init__(self, texts: StoredTexts, name: str) -> None:
        """Prepare to store a text.

        Args:
            texts: the folder.
            name: the wanted name.

        Raises:
            ApiError: no file may have this name.
            FileError: the folder cannot be made.
        """
        self._texts, self._name = texts, check_folder_name(name, "name")
        create_folder(texts.folder)
        self._temporary = texts.folder / f".{secrets.token_hex(8)}.tmp"
        self._hash, self._bytes = hashlib.sha256(), 0
        with explain_os_errors("write", self._temporary):
            self._file: IO[bytes] = self._temporary.open("xb")

    def write(self, part: bytes) -> None:
        """Add a part. Raise FileError."""
        with explain_os_errors("write", self._temporary):
            self._file.write(part)
        self._hash.update(part)
        self._bytes += len(part)

    def finish(self) -> StoredText:
        """Give the file its name, and return the text. If the same text has this name already, return that one.

        Raises:
            ApiError: the text is empty, or the folder has no space for it.
            FileError: the file cannot be written.
        """
        if self._bytes == 0:
            raise ApiError(400, "the text is empty: send some text", "text")
        with explain_os_errors("write", self._temporary):
            self._file.flush()
            os.fsync(self._file.fileno())
            for number in itertools.count(1):
                name = self._name if number == 1 else f"{self._name}-{number}"
                path = self._texts.folder / f"{name}{SUFFIX}"
                if not path.exists():
                    self._texts.require_space(self._bytes)
                with contextlib.suppress(FileExistsError):
                    path.touch(exist_ok=False)  # of two uploads at the same time, only one gets the name
                    self._temporary.replace(path)
                    flush_folder(self._texts.folder)
                    return StoredText(name, path, self._bytes)
                if self._is_same(path):
                    return StoredText(name, path, self._bytes)
        raise AssertionError("there is always a next number")

    def _is_same(self, path: Path) -> bool:
        """Return True if a file holds the text that has arrived."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != self._bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == self._hash.digest()

    def close(self) -> None:
        """Remove the file without a name."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

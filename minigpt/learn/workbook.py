"""A workbook on disk: the learner's files, and what is done."""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.errors import FileError
from minigpt.learn.catalog import ENTRIES, Entry, load_exercise
from minigpt.learn.skeleton import make_skeleton
from minigpt.system.files import create_folder, explain_os_errors, read_bytes, read_text, write_atomic

PROGRESS = "progress.json"
DEFAULT_FOLDER = Path("workbook")
MAX_BYTES = 2**20  # of a learner's file, and of progress.json


@dataclass(frozen=True)
class Status:
    """How far an exercise is: "done", "changed" since it passed, "open" or "missing"."""

    entry: Entry
    state: str


class Workbook:
    """A folder of exercises."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def find(cls, folder: Path | None) -> "Workbook":
        """Return the workbook of a folder; None stands for this folder, or the folder `workbook` in it.

        Raises:
            FileError: there is no workbook.
        """
        places = (Path(), DEFAULT_FOLDER) if folder is None else (folder,)
        for place in places:
            if cls(place).has_files():
                return cls(place)
        name = "here" if folder is None else f"in {str(folder)!r}"
        raise FileError(f"there is no workbook {name}: minigpt learn start makes one")

    @classmethod
    def start(cls, folder: Path) -> tuple["Workbook", list[Entry]]:
        """Write the exercises that are not yet in a folder; files that are there stay as they are.

        Returns:
            The workbook, and the exercises that were written.
        """
        create_folder(folder)
        workbook = cls(folder)
        written = [entry for entry in ENTRIES if not workbook.get_path(entry).exists()]
        for entry in written:
            write_atomic(workbook.get_path(entry), make_skeleton(entry, load_exercise(entry)).encode())
        if not (folder / PROGRESS).exists():
            workbook._write_progress({})
        return workbook, written

    def has_files(self) -> bool:
        """Return True if the folder has a file of a workbook."""
        return any((self.folder / name).is_file() for name in (PROGRESS, *(entry.file_name for entry in ENTRIES)))

    def get_path(self, entry: Entry) -> Path:
        """Return the path of the learner's file."""
        return self.folder / entry.file_name

    def list_status(self) -> list[Status]:
        """Return how far each exercise is."""
        progress = self._read_progress()
        return [Status(entry, self._find_state(entry, progress)) for entry in ENTRIES]

    def is_done(self, entry: Entry) -> bool:
        """Return True if the file passed its check as it is."""
        return self._find_state(entry, self._read_progress()) == "done"

    def find_next(self) -> Entry | None:
        """Return the first exercise that is not done."""
        return next((status.entry for status in self.list_status() if status.state != "done"), None)

    def record_check(self, entry: Entry, passed: bool, digest: str) -> None:
        """Note whether a file passed; `digest` is that of the file before the check."""
        self._update(entry, passed=digest if passed else None)

    def take_hint(self, entry: Entry, count: int) -> int:
        """Return the number of the next hint, from 0; the last of `count` hints is given again and again."""
        number = min(int(self._get_notes(self._read_progress(), entry).get("hints", 0)), count - 1)
        self._update(entry, hints=number + 1)
        return number

    def compute_digest(self, entry: Entry) -> str:
        """Return the SHA-256 of the learner's file. Raise FileError if there is none."""
        if not self.get_path(entry).exists():
            start = f"minigpt learn start {shlex.quote(str(self.folder))}"
            raise FileError(f"there is no {str(self.get_path(entry))!r}: {start} writes it anew")
        return hashlib.sha256(read_bytes(self.get_path(entry), MAX_BYTES)).hexdigest()

    def _find_state(self, entry: Entry, progress: dict[str, Any]) -> str:
        """Return the state of an exercise."""
        if not self.get_path(entry).is_file():
            return "missing"
        passed = self._get_notes(progress, entry).get("passed")
        if not passed:
            return "open"
        return "done" if passed == self.compute_digest(entry) else "changed"

    @staticmethod
    def _get_notes(progress: dict[str, Any], entry: Entry) -> dict[str, Any]:
        """Return what is noted about an exercise."""
        notes = progress.get(str(entry.number), {})
        return notes if isinstance(notes, dict) else {}

    def _update(self, entry: Entry, **notes: Any) -> None:
        """Change what is noted about an exercise."""
        progress = self._read_progress()
        progress[str(entry.number)] = self._get_notes(progress, entry) | notes
        self._write_progress(progress)

    def _read_progress(self) -> dict[str, Any]:
        """Read the notes. Raise FileError if the file is damaged."""
        path = self.folder / PROGRESS
        if not path.exists():
            return {}
        try:
            content = json.loads(read_text(path, MAX_BYTES))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise FileError(f"{str(path)!r} is damaged: delete it, and check the exercises again")
        return content

    def _write_progress(self, progress: dict[str, Any]) -> None:
        """Write the notes, all or nothing."""
        with explain_os_errors("write", self.folder):
            write_atomic(self.folder / PROGRESS, json.dumps(progress, indent=1).encode())

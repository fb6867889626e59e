"""For teachers: which exercises of a workbook pass."""

from dataclasses import dataclass
from pathlib import Path

from minigpt.learn.catalog import ENTRIES
from minigpt.learn.check_server import CheckServer
from minigpt.learn.file_check import check_files
from minigpt.learn.workbook import Workbook


@dataclass(frozen=True)
class Report:
    """What passes in a workbook.

    Attributes:
        folder: the workbook.
        checked: the numbers of all exercises.
        passed: the numbers of those that pass.
        mistakes: what is wrong with each of the others, by number.
    """

    folder: str
    checked: list[int]
    passed: list[int]
    mistakes: dict[int, str]


def report_workbook(folder: Path, server: CheckServer | None = None) -> Report:
    """Check all exercises of a workbook anew. A trial is not repeated: what its own check found is reported.

    Args:
        folder: the workbook.
        server: imports PyTorch once, for several workbooks.

    Raises:
        FileError: there is no workbook in the folder.
    """
    workbook = Workbook.find(folder)
    entries = [entry for entry in ENTRIES if not entry.has_trial and workbook.get_path(entry).is_file()]
    verdicts = [*check_files(workbook, entries, server=server)] if entries else []
    passed = [verdict.number for verdict in verdicts if verdict.passed]
    passed += [entry.number for entry in ENTRIES if entry.has_trial and workbook.is_done(entry)]
    mistakes = {verdict.number: verdict.message for verdict in verdicts if not verdict.passed}
    mistakes |= {entry.number: "There is no file." for entry in ENTRIES if not workbook.get_path(entry).is_file()}
    return Report(str(folder), [entry.number for entry in ENTRIES], passed, mistakes)

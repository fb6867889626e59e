"""The bases of a fine-tuned run: the run that it started from, the base of that run, and so on."""

from pathlib import Path

from minigpt.errors import DataError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import RunInfo
from minigpt.system.advice import advise_text

MAX_BASES = 100  # runs that were fine-tuned one from another


def find_trained_on_text(path: Path, info: RunInfo) -> tuple[Path, RunInfo]:
    """Return the directory and the info of a run, or of its nearest base that was trained on a text.

    A run that learned instructions or preferences was not.

    Args:
        path: the run's directory.
        info: the content of its run.json.

    Raises:
        DataError: there is no such run, or it was imported without its text.
        RunError: a base is not there any more.
    """
    start = path
    for _ in range(MAX_BASES):
        if not info.instructions or info.base is None:
            break
        path = Path(info.base)
        info = RunDirectory(path).read_info()
    if info.instructions or info.status == "imported":
        whose = "no text that is known" if path == start else "a base whose text is not known"
        raise DataError(f"{str(start)!r} has {whose}: {advise_text('a text')}")
    return path, info

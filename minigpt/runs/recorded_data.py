"""Open the data that a run was trained on. A run's files may be untrusted, so the data they name are checked first."""

import hashlib
import logging
import stat
from collections.abc import Sequence
from pathlib import Path

from minigpt.config import DataPath
from minigpt.data.corpus import Corpus, find_data, load_tiny_shakespeare
from minigpt.data.prepared_data import PreparedData
from minigpt.data.shards import INDEX, MAX_INDEX_BYTES
from minigpt.data.text_format import TextFormat
from minigpt.errors import DataError, FileError
from minigpt.runs.run_info import RunInfo
from minigpt.system.advice import advise_text
from minigpt.system.files import explain_os_errors, read_bytes

logger = logging.getLogger(__name__)


def measure_data_files(paths: Sequence[str | Path]) -> int | None:
    """Return the size of files, or of the index of prepared data, in bytes.

    None stands for no file, and for a pipe, such as of `--data <(zcat text.gz)`: it cannot be read again.
    """
    sizes = []
    for path in paths:
        with explain_os_errors("read", path):
            status = _locate(Path(path)).stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        sizes.append(status.st_size)
    return sum(sizes) if sizes else None


def require_recorded_files(paths: Sequence[str], size: int | None, run: Path) -> None:
    """Check that paths, which a run's files name, lead to files of the recorded size, and log the paths.

    Args:
        paths: the paths, relative to the current folder.
        size: the recorded size of all files in bytes; None if there was a pipe.
        run: the run's directory, for messages.

    Raises:
        FileError: there is no such file, or it is a pipe, a device or a folder.
        DataError: the size is another.
    """
    name = _format_paths(paths)
    where = f"the text of {str(run)!r}: {advise_text('that text')}"
    if size is None:
        raise FileError(f"{name} was a pipe, which cannot be read again, and is {where}")
    try:
        found = measure_data_files(paths)
    except FileError as error:
        raise FileError(f"{error}; it is {where}") from None
    if found is None:
        raise FileError(f"{name} is a pipe, a device or a folder, and is {where}")
    if found != size:
        raise DataError(_describe_change(name, run))
    logger.info("reading %s, which %r names", name, str(run))


def find_training_data(run: Path, info: RunInfo, data: DataPath, text_format: TextFormat) -> Corpus | PreparedData:
    """Return the data of a run's training.

    Args:
        run: the run's directory, for messages.
        info: what the run's run.json says.
        data: where the data are now; None for the recorded place.
        text_format: how the training read its text.

    Raises:
        FileError: a file cannot be read.
        DataError: the data have changed.
    """
    if data is None and info.data_paths:
        require_recorded_files(info.data_paths, info.data_bytes, run)
        data = info.data_paths
        index = _locate(Path(data[0]))
        if index.name == INDEX and index != Path(data[0]):  # prepared data: checked before its other files are opened
            _require_hash(hashlib.sha256(read_bytes(index, MAX_INDEX_BYTES)).hexdigest(), info, data[0], run)
    corpus = load_tiny_shakespeare() if data is None else find_data(data, text_format=text_format)
    _require_hash(corpus.sha256, info, corpus.source, run)
    return corpus


def _require_hash(sha256: str, info: RunInfo, source: str | Path, run: Path) -> None:
    if sha256 != info.data_sha256:
        raise DataError(_describe_change(source, run))


def _describe_change(source: str | Path, run: Path) -> str:
    return f"{source} is not the text that {str(run)!r} was trained on: {advise_text('that text')}"


def _locate(path: Path) -> Path:
    """Return the file that stands for the data: itself, or the index of prepared data."""
    return path / INDEX if path.is_dir() else path


def _format_paths(paths: Sequence[str]) -> str:
    """Return paths for a message: the first, and how many more there are."""
    return repr(paths[0]) + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "")

"""The data that a run's files name, which may be untrusted: opened only where it is what the run was trained on."""

import hashlib
import logging
import stat
from pathlib import Path

from minigpt.data.corpus import Corpus, find_data, load_tiny_shakespeare
from minigpt.data.prepared_data import PreparedData
from minigpt.data.shards import INDEX, MAX_INDEX_BYTES
from minigpt.errors import DataError, FileError
from minigpt.runs.record import Record
from minigpt.system.files import explain_os_errors, read_bytes

logger = logging.getLogger(__name__)


def measure_data_file(path: str | Path | None) -> int | None:
    """Return the size of a file, or of the index of prepared data, in bytes.

    None stands for no path, and for a pipe, such as of `--data <(zcat text.gz)`: it cannot be read again.
    """
    if path is None:
        return None
    with explain_os_errors("read", path):
        status = _locate(Path(path)).stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def require_recorded_file(path: str, size: int | None, run: Path) -> str:
    """Check that a path, which a run's files name, leads to a file of the recorded size, and log the path.

    Args:
        path: the path, relative to the current folder.
        size: the recorded size in bytes; None if it was a pipe.
        run: the run's directory, for messages.

    Returns:
        The path.

    Raises:
        FileError: there is no such file, or it is a pipe, a device or a folder.
        DataError: its size is another.
    """
    where = f"the text of {str(run)!r}: name that text with --data"
    if size is None:
        raise FileError(f"{path!r} was a pipe, which cannot be read again, and is {where}")
    try:
        found = measure_data_file(path)
    except FileError as error:
        raise FileError(f"{error}; it is {where}") from None
    if found is None:
        raise FileError(f"{path!r} is a pipe, a device or a folder, and is {where}")
    if found != size:
        raise DataError(_describe_change(path, run))
    logger.info("reading %r, which %r names", path, str(run))
    return path


def find_training_data(run: Path, record: Record, data: str | Path | None) -> Corpus | PreparedData:
    """Return the data of a run's training.

    Args:
        run: the run's directory, for messages.
        record: the run's record.
        data: where the data are now; None for the recorded place.

    Raises:
        FileError: a file cannot be read.
        DataError: the data have changed.
    """
    if data is None and record.data_path is not None:
        data = require_recorded_file(record.data_path, record.data_bytes, run)
        index = _locate(Path(data))
        if index.name == INDEX and index != Path(data):  # prepared data: checked before its other files are opened
            _require_hash(hashlib.sha256(read_bytes(index, MAX_INDEX_BYTES)).hexdigest(), record, data, run)
    corpus = load_tiny_shakespeare() if data is None else find_data(data)
    _require_hash(corpus.sha256, record, corpus.source, run)
    return corpus


def _require_hash(sha256: str, record: Record, source: str | Path, run: Path) -> None:
    if sha256 != record.data_sha256:
        raise DataError(_describe_change(source, run))


def _describe_change(source: str | Path, run: Path) -> str:
    return f"{source} is not the text that {str(run)!r} was trained on: name that text with --data"


def _locate(path: Path) -> Path:
    """Return the file that stands for the data: itself, or the index of prepared data."""
    return path / INDEX if path.is_dir() else path

"""The runs that the server offers, by name. Each is opened when it is first used, and its weights are loaded once.

A request names a run by a name of `ServedRuns.list_names`, and never a path.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from minigpt.errors import ConfigError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_listing import is_run, is_training, list_runs
from minigpt.runs.run_overview import RunOverview
from minigpt.studies.ngram_companion import fit_ngram_companion
from minigpt.web.api_errors import ApiError
from minigpt.web.run_cards import NGRAM_PREFIX

MAX_LOADED = 8  # runs whose weights stay in memory
Version = tuple[tuple[int, int, int], ...]  # of the run's files: inode, size and time of the last change


class ServedRuns:
    """Finds and opens the served runs. Threads may share it.

    Attributes:
        folder: the folder whose runs are served, those that appear later too; None if there is none.
    """

    def __init__(self, paths: Sequence[Path] = (), folder: Path | None = None) -> None:
        """Name the runs to serve.

        Args:
            paths: the runs' directories.
            folder: a folder whose runs are served as well, those that appear later too.

        Raises:
            ConfigError: two of the runs have the same name.
        """
        self._paths = {path.resolve().name: path for path in paths}
        if len(self._paths) < len(paths):
            names = [path.resolve().name for path in paths]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"two of the runs are named {twice!r}: serve one of them, or rename it")
        self.folder = folder
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, tuple[Version, Run]] = OrderedDict()
        self._overviews: dict[str, tuple[Version, RunOverview]] = {}

    def list_names(self) -> list[str]:
        """Return the names of the served runs, the newest of the folder first."""
        return list(self._find_paths())

    def read_overview(self, name: str) -> RunOverview:
        """Return what a run's files say, without its weights.

        Raises:
            ApiError: no run of this name is served.
            RunError: a file is missing or damaged.
        """
        path = self._find_path(name)
        version = _read_version(path)
        with self._lock:
            known = self._overviews.get(name)
        if known is None or known[0] != version:
            known = version, RunOverview.read(path)
            with self._lock:
                self._overviews[name] = known
        return known[1]

    def is_training(self, name: str) -> bool:
        """Return True while a process trains the run. Raise ApiError if no run of this name is served."""
        return is_training(self._find_path(name))

    def open(self, name: str) -> Run:
        """Return a run, opened again if its files have changed.

        Args:
            name: a run's name; after the prefix "ngram:", its model is the n-gram model of the run's training text.

        Raises:
            ApiError: no run of this name is served.
            MinigptError: the run cannot be opened, or its training text cannot be read.
        """
        path = self._find_path(name.removeprefix(NGRAM_PREFIX))
        version = _read_version(path)
        with self._lock:  # while one request opens a run, the others that need a run wait
            known = self._loaded.get(name)
            if known is None or known[0] != version:
                run = Run.open(path)
                if name.startswith(NGRAM_PREFIX):
                    run = fit_ngram_companion(run)
                known = self._loaded[name] = version, run
            self._loaded.move_to_end(name)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
        return known[1]

    def _find_path(self, name: str) -> Path:
        path = self._find_paths().get(name)
        if path is None:
            raise ApiError(
                404, f"there is no run {name[:100]!r}: GET /v1/models lists them", "model", "model_not_found"
            )
        return path

    def _find_paths(self) -> dict[str, Path]:
        found = {name: path for name, path in self._paths.items() if is_run(path)}
        if self.folder is not None and self.folder.is_dir():
            found |= {run.path.name: run.path for run in reversed(list_runs(self.folder))}
        return found


def _read_version(path: Path) -> Version:
    """Return what changes when a run's files are replaced."""
    directory = RunDirectory(path)
    found = []
    for file in (directory.config, directory.info, directory.model):
        try:
            status = file.stat()
        except OSError:
            continue
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)

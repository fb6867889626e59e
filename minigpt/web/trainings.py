"""The trainings in the folder of the served runs: start, follow, stop and resume them.

A training is a process of its own, `minigpt train`, which knows nothing of the server. The server follows the files of
its run, and the file that names the process that trains the run. So it also follows trainings that were started in a
terminal, and those of an earlier server.
"""

import functools
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.data.corpus import TINY_SHAKESPEARE
from minigpt.errors import MinigptError
from minigpt.runs.run_directory import PROCESS, RunDirectory
from minigpt.runs.run_info import RunInfo, read_run_info
from minigpt.runs.run_listing import is_run
from minigpt.system.files import explain_os_errors
from minigpt.system.process_file import CAN_LOCK, find_process, signal_process
from minigpt.web.api_errors import ApiError
from minigpt.web.folder_names import PLAYGROUND, check_folder_name
from minigpt.web.settings import Limits
from minigpt.web.stored_texts import StoredTexts
from minigpt.web.training_process import find_error, format_command, is_alive, read_tail, start_process
from minigpt.web.training_progress import ACTIVE, FileVersion, State, Training, can_resume, describe_progress
from minigpt.web.training_settings import check_settings, format_flags

NO_FOLDER = "this server serves named runs only: start minigpt serve without a name to train here"
NO_LOCKS = "this system has no locks by which a training can be followed: start minigpt train in a terminal"
NO_TRAININGS = "this server allows no trainings: start minigpt train in a terminal, or the server with --trainings 1"
CANNOT_STOP = {
    "starting": "is starting: try again in a moment",
    "stopping": "is stopping already: wait until it is saved",
}
NOT_TRAINED = "is not being trained: there is nothing to stop"
STOPPED_EARLY = "the training was stopped before it began"


@dataclass
class Start:
    """A process that this server has started.

    Attributes:
        process: the process.
        before: the version of run.json at the start; None for a new run.
    """

    process: "subprocess.Popen[bytes]"
    before: FileVersion | None


class Trainings:
    """The trainings in a folder. Threads may share it. All methods read files; none waits for a training."""

    def __init__(self, folder: Path | None, limits: Limits) -> None:
        """Follow the trainings of a folder; without one there are none.

        Args:
            folder: the folder of the served runs.
            limits: how many trainings may run at once, and how much room the uploaded texts have.
        """
        self._folder, self._limits = folder, limits
        self._starts: dict[str, Start] = {}
        self._stopping: dict[str, int | None] = {}  # the process that got a signal
        self._lock = threading.Lock()

    @property
    def texts(self) -> StoredTexts:
        """The uploaded texts. Raise ApiError where no training can be started."""
        return StoredTexts(self._require_allowed(), self._limits.stored_bytes)

    def find_reason(self) -> str | None:
        """Return why no training can be started here, in one sentence; None if one can."""
        return self._find_obstacle() or (None if self._limits.trainings else NO_TRAININGS)

    def list_trainings(self) -> list[Training]:
        """Return all trainings, the active ones first, then the newest."""
        found = [training for name in self._list_names() if (training := self._read(name))]
        found.sort(key=lambda training: training.info.started if training.info else "9", reverse=True)
        return sorted(found, key=lambda training: training.state not in ACTIVE)

    def find(self, name: str) -> Training:
        """Return a training. Raise ApiError for an unknown name."""
        training = self._read(name) if name in self._list_names() else None
        if training is None:
            raise ApiError(404, f"there is no training {name[:100]!r}: GET /api/v1/trainings lists them", "name")
        return training

    def describe(self, name: str, after: int, after_sample: int) -> dict[str, Any]:
        """Return what docs/web_api.md says of one training.

        Args:
            name: its name.
            after: only evaluations of later steps are returned.
            after_sample: only samples of later steps are returned.

        Raises:
            ApiError: there is no such training.
        """
        directory = RunDirectory(self._require_folder() / name)
        progress = describe_progress(self.find(name), directory, after, after_sample)
        return {**progress, "output": read_tail(self._get_log(name))}

    def start(self, name: str, preset: str, text: str | None, settings: Mapping[str, Any]) -> str:
        """Start a new training, and return the command that does the same in a terminal.

        Args:
            name: the name of the new run.
            preset: the preset to start from.
            text: the name of an uploaded text; None for Tiny Shakespeare.
            settings: the settings that differ from the preset's.

        Raises:
            ApiError: the name is taken or no name, the text does not exist, or too many trainings run.
            ConfigError: a setting is wrong.
        """
        path = self._require_allowed() / check_folder_name(name, "name")
        check_settings(preset, settings)
        data = TINY_SHAKESPEARE if text is None else str(self.texts.find(text).path)
        arguments = ["train", *_format_task(preset, data, settings), "--out", str(path)]
        with self._lock:
            if path.exists() or path.is_symlink():
                raise ApiError(409, f"there is a run {name!r} already: choose another name", "name", "conflict")
            return self._start(name, arguments, append=False)

    def resume(self, name: str, max_iters: int | None) -> str:
        """Resume a training, and return the command that does the same in a terminal.

        Args:
            name: the run.
            max_iters: the new number of steps, which makes a finished run longer; None keeps it.

        Raises:
            ApiError: the run cannot be resumed, or too many trainings run.
            ConfigError: the number of steps is wrong.
        """
        directory, training = RunDirectory(self._require_allowed() / name), self.find(name)
        if training.state in ACTIVE:
            raise ApiError(409, f"{name!r} is being trained: stop it first", "name", "conflict")
        if training.info is None or not can_resume(training, directory):
            raise ApiError(400, f"{name!r} has no training that can be resumed: start a new one", "name")
        if max_iters is not None:
            directory.read_config().override(max_iters=max_iters)
        if training.state == "finished" and (max_iters or 0) <= training.info.step:
            way_out = f"give max_iters above {training.info.step:,}"
            raise ApiError(400, f"{name!r} has done all its {training.info.step:,} steps: {way_out}", "max_iters")
        arguments = ["train", "--resume", str(directory.path)]
        with self._lock:
            return self._start(name, [*arguments, *format_flags({"max_iters": max_iters})], append=True)

    def stop(self, name: str) -> None:
        """Let a training stop in order: it finishes its step, evaluates and saves. It does not end at once.

        Raises:
            ApiError: it is not active, or stops already.
            FileError: the training belongs to another user.
        """
        file = self._require_allowed() / name / PROCESS
        with self._lock:
            training, start = self.find(name), self._starts.get(name)
            if training.state == "running" and signal_process(file, signal.SIGTERM):
                self._stopping[name] = find_process(file)
            elif training.state == "starting" and start is not None:
                start.process.terminate()  # a child that has not been waited for: nobody else can have its id
            else:
                raise ApiError(409, f"{name!r} {CANNOT_STOP.get(training.state, NOT_TRAINED)}", "name", "conflict")

    def build_forecast_command(self, preset: str, text: str | None, settings: Mapping[str, Any]) -> list[str]:
        """Return the words of the command that forecasts a training. The arguments and errors are those of `start`."""
        self._require_allowed()
        check_settings(preset, settings)
        data = TINY_SHAKESPEARE if text is None else str(self.texts.find(text).path)
        return ["train", *_format_task(preset, data, settings), "--forecast", "--json"]

    def _start(self, name: str, arguments: list[str], append: bool) -> str:
        """Start a process unless too many trainings run."""
        active = sum(training.state in ACTIVE for training in self.list_trainings())
        if active >= self._limits.trainings:
            runs = "1 training runs" if active == 1 else f"{active} trainings run"
            message = f"{runs} on this server, and its limit is {self._limits.trainings}: wait for the end, or stop one"
            raise ApiError(503, message, code="overloaded")
        self._delete_orphaned_logs()
        before = _read_version(self._require_folder() / name)
        self._starts[name] = Start(start_process(arguments, self._get_log(name), append), before)
        return format_command(arguments)

    def _find_obstacle(self) -> str | None:
        """Return why no training can be followed here; None if trainings can."""
        if self._folder is None:
            return NO_FOLDER
        if is_run(self._folder / PLAYGROUND):
            taken = str(self._folder / PLAYGROUND)
            return f"{taken!r} is a run, and the page keeps its own files in a folder of that name: rename the run"
        return None if CAN_LOCK else NO_LOCKS

    def _require_folder(self) -> Path:
        """Return the folder. Raise ApiError where no training can be followed."""
        reason = self._find_obstacle()
        if self._folder is None or reason:
            raise ApiError(400, reason or NO_FOLDER, code="no_trainings")
        return self._folder

    def _require_allowed(self) -> Path:
        """Return the folder. Raise ApiError where no training can be started or stopped."""
        if reason := self.find_reason():
            raise ApiError(400, reason, code="no_trainings")
        return self._require_folder()

    def _get_log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _list_logs(self) -> list[Path]:
        return list(self._logs.glob("*.log"))

    @property
    def _logs(self) -> Path:
        return self._require_folder() / PLAYGROUND / "logs"

    def _delete_orphaned_logs(self) -> None:
        """Delete the logs of runs that were deleted."""
        names = self._list_names()
        for log in self._list_logs():
            if log.stem not in names:
                with explain_os_errors("delete", log):
                    log.unlink(missing_ok=True)

    def _list_names(self) -> set[str]:
        """Return the names of the runs in the folder, and of the processes that have no run yet."""
        if self._find_obstacle() or self._folder is None:
            return set()
        with explain_os_errors("look for runs in", self._folder):
            runs = {path.name for path in self._folder.iterdir() if is_run(path)} if self._folder.is_dir() else set()
        return runs | self._starts.keys() | {log.stem for log in self._list_logs() if is_alive(log)}

    def _read(self, name: str) -> Training | None:
        """Return a training; None for a run that was imported or that cannot be read."""
        path = self._require_folder() / name
        try:
            info = _read_info(path, _read_version(path)) if is_run(path) else None
        except MinigptError:
            return None
        if info is not None and info.status == "imported":
            return None
        state = self._find_state(name, path, info)
        return Training(name, state, info, self._find_error(name, state))

    def _find_state(self, name: str, path: Path, info: RunInfo | None) -> State:
        start = self._starts.get(name)
        if start is not None:
            start.process.poll()  # a process that has ended must be waited for
        process = find_process(path / PROCESS)
        if process is not None:
            return "stopping" if self._stopping.get(name) == process else "running"
        if is_alive(self._get_log(name)):
            was_saved = info is not None and info.status != "unfinished"
            is_ending = was_saved and (start is None or start.before != _read_version(path))
            return "stopping" if is_ending else "starting"
        if info is None:
            return "failed"
        if info.status == "unfinished":
            return "killed"
        assert info.status != "imported"
        return info.status

    def _find_error(self, name: str, state: State) -> str | None:
        if state in (*ACTIVE, "finished"):
            return None
        error, start = find_error(read_tail(self._get_log(name))), self._starts.get(name)
        if error is None and state == "failed":
            was_stopped = start is not None and start.process.poll() in (-signal.SIGTERM, 128 + signal.SIGTERM)
            return STOPPED_EARLY if was_stopped else f"the training failed: {str(self._get_log(name))!r} shows why"
        return error


def _format_task(preset: str, data: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the flags that say what to train on what."""
    return ["--preset", preset, "--data", data, *format_flags(settings)]


@functools.lru_cache(maxsize=1024)
def _read_info(path: Path, version: FileVersion | None) -> RunInfo:
    """Read run.json, once for each version of it."""
    return read_run_info(path / "run.json")


def _read_version(path: Path) -> FileVersion | None:
    """Return what changes when run.json is replaced; None where there is no run."""
    try:
        status = (path / "run.json").stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns

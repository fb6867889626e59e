"""The callback behind `--log-to tensorboard`: it copies a run's metrics and samples into an event file of TensorBoard.

metrics.jsonl and snapshots.jsonl remain the record of a run. A training that resumes, or that goes back to a
checkpoint, may have logged steps that the run does not have: it writes a new event file from the run's own record.
"""

import contextlib
import io
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from minigpt.config import TrainingConfig
from minigpt.errors import FileError, MissingExtraError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Metrics, Snapshot
from minigpt.system.files import explain_os_errors, write_atomic
from minigpt.system.terminal import escape_control_characters
from minigpt.training.callbacks import Callback, Losses
from minigpt.training.training_state import TrainingState

FILE_VERSION = "brain.Event:2"  # of TensorBoard's format


class TensorBoardLog(Callback):
    """Writes each evaluation of metrics.jsonl and each sample to an event file in the run's directory.

    An event's wall time is the time spent on training steps, counted from the start: evaluations and stops take none.
    If the file cannot be written, a warning says so, and the training goes on.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.path: Path | None = None  # of the event file; None before the first, and after a write that failed
        self.metrics = self.snapshots = 0  # how many of the state's are in the file
        self.last_step = -1  # of an event in the file
        self.start_time = 0.0  # Unix time in seconds
        self.is_failing = False

    def on_train_begin(self, state: TrainingState) -> None:
        """Write what a resumed run has measured so far."""
        self.start_time = time.time() - state.clock.training_seconds
        self._write(state)

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Add the evaluation and the sample of this step, if there are any."""
        self._write(state)

    def _write(self, state: TrainingState) -> None:
        """Write what the state has and the file has not, in the first process only. Warn if that fails."""
        if not state.processes.is_first:
            return
        went_back = state.step <= self.last_step
        try:
            if self.path is None or went_back or not self.path.exists():
                self._start_file(state)
            else:
                with explain_os_errors("write", self.path), self.path.open("ab") as file:
                    file.write(_serialize(self._make_events(state)))
        except FileError as error:
            self.path = None  # the file may end in half an event, behind which nothing is read
            if not self.is_failing:
                warnings.warn(f"{error}; the training goes on, and tries again at each evaluation", stacklevel=1)
            self.is_failing = True
            return
        self.is_failing = False
        self.metrics, self.snapshots = len(state.metrics), len(state.snapshots)
        steps = [metrics.step for metrics in state.metrics[-1:]]
        steps += [snapshot.step for snapshot in state.snapshots[-1:]]
        self.last_step = max(steps, default=-1)

    def _start_file(self, state: TrainingState) -> None:
        """Write everything to a new file, and empty the one before it.

        TensorBoard may be reading the old file. At its end it opens the file with the next name, but not if the old
        file is gone. The session's start tells it to forget what it has read.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self.metrics = self.snapshots = 0
        version = Event(wall_time=self.start_time, file_version=FILE_VERSION)
        start = Event(wall_time=self.start_time, session_log=SessionLog(status=SessionLog.START))
        path = self.run.path / f"events.out.tfevents.{time.time_ns()}.minigpt"
        write_atomic(path, _serialize([version, start, *self._make_events(state)]))
        for file in self.run.list_event_files():
            if file != path:
                with contextlib.suppress(OSError):  # TensorBoard forgets the events of a file that stays
                    _empty_or_remove(file)
        self.path = path

    def _make_events(self, state: TrainingState) -> Iterator[Any]:
        """Yield an event for each evaluation and each sample that is not in the file."""
        from tensorboard.compat.proto.event_pb2 import Event

        for n, metrics in enumerate(state.metrics[self.metrics :], self.metrics):
            summary = _summarize_metrics(metrics, state.metrics[n - 1] if n else None)
            yield Event(wall_time=self.start_time + metrics.seconds, step=metrics.step, summary=summary)
        for snapshot in state.snapshots[self.snapshots :]:
            seconds = max((each.seconds for each in state.metrics if each.step <= snapshot.step), default=0.0)
            yield Event(wall_time=self.start_time + seconds, step=snapshot.step, summary=_summarize_sample(snapshot))


def require_logger(config: TrainingConfig) -> None:
    """Raise MissingExtraError if the config logs to TensorBoard and its package is not installed."""
    if config.log_to == "tensorboard":
        try:
            import tensorboard.compat.proto.event_pb2
            import tensorboard.summary.writer.record_writer  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("tensorboard", "tensorboard") from None


def _empty_or_remove(file: Path) -> None:
    """Empty an event file; remove one that is empty, or a link, which may lead out of the run."""
    if file.is_symlink() or not file.stat().st_size:
        file.unlink()
    else:
        os.truncate(file, 0)


def _summarize_metrics(metrics: Metrics, before: Metrics | None) -> Any:
    """Return the scalars of an evaluation. The speed is that of the steps since the evaluation before it."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    scalars = {
        "loss/train": metrics.train_loss,
        "loss/validation": metrics.validation_loss,
        "learning_rate": metrics.learning_rate,
    }
    if before and metrics.seconds > before.seconds:
        speed = (metrics.characters - before.characters) / (metrics.seconds - before.seconds)
        scalars["characters_per_second"] = speed
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()])


def _summarize_sample(snapshot: Snapshot) -> Any:
    """Return the text of a sample. TensorBoard renders Markdown, in which each indented line is shown as it is."""
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    plugin = SummaryMetadata.PluginData(plugin_name="text")
    metadata = SummaryMetadata(plugin_data=plugin, data_class=DATA_CLASS_TENSOR)
    lines = escape_control_characters(snapshot.text).split("\n")
    block = "\n".join(f"    {line}" for line in lines).encode("utf-8", "backslashreplace")
    tensor = TensorProto(dtype=DT_STRING, string_val=[block])
    return Summary(value=[Summary.Value(tag="sample", tensor=tensor, metadata=metadata)])


def _serialize(events: Iterable[Any]) -> bytes:
    """Return events in the format of an event file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    writer = RecordWriter(records)
    for event in events:
        writer.write(event.SerializeToString())
    return records.getvalue()

"""The run's journal: what happened at each evaluation, written down and shown."""

import dataclasses
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager

from minigpt.folder import Metrics, Record, RunFolder, Snapshot, Status
from minigpt.run import Run
from minigpt.training.display import Display

SNAPSHOTS = 10  # how often, in all, the model writes a line while it trains
SNAPSHOT_TOKENS = 80
SECONDS_BETWEEN_UPDATES = 0.1


class Journal:
    """Keeps the time, training apart from evaluation; at each evaluation logs, saves and shows.

    Attributes:
        metrics: the evaluations so far; the run's own list.
        step: the last one whose evaluation is on disk.
        snapshots: what the model wrote on the way.
        evaluation_seconds: time spent on evaluating, saving and writing samples.
    """

    def __init__(self, run: Run, display: Display) -> None:
        self.run = run
        self.folder = RunFolder(run.path)
        self.display = display
        self.metrics = run.metrics
        self.step = 0
        self.snapshots: list[Snapshot] = []
        self.evaluation_seconds = 0.0
        self.started = self.shown = time.perf_counter()
        self.paused: float | None = None
        training = run.config.training
        self.tokens_a_step = training.batch_size * run.config.model.block_size
        evaluations = training.max_iters // training.eval_interval
        self.snapshot_interval = max(1, evaluations // SNAPSHOTS) * training.eval_interval

    def begin(self) -> None:
        """Start the clock and the table."""
        self.started = self.shown = time.perf_counter()
        self.display.begin()

    @property
    def seconds(self) -> float:
        """Time since the start, evaluations included."""
        return time.perf_counter() - self.started

    @property
    def training_seconds(self) -> float:
        """Time since the start, evaluations left out."""
        now = time.perf_counter() if self.paused is None else self.paused
        return now - self.started - self.evaluation_seconds

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """What happens in the block counts as evaluation, not as training."""
        self.paused = time.perf_counter()
        yield
        self.evaluation_seconds += time.perf_counter() - self.paused
        self.paused = None

    def evaluated(self, step: int, train_loss: float, validation_loss: float) -> None:
        """Log the losses after `step` steps, save the weights, show both; now and then let the model write."""
        now = Metrics(
            step=step,
            train_loss=train_loss,
            validation_loss=validation_loss,
            learning_rate=self.run.config.training.learning_rate,
            seconds=self.training_seconds,
            characters=step * self.tokens_a_step,
        )
        best_so_far = self.run.best is None or validation_loss < self.run.best.validation_loss
        self.folder.save_weights(self.run.model, best_so_far)
        self.metrics.append(now)
        self.folder.write_metrics(self.metrics)
        self.step = step
        self.display.evaluated(now, self.seconds, best_so_far)
        if step % self.snapshot_interval == 0 or step == self.run.config.training.max_iters:
            text = self.run.generate(max_new_tokens=SNAPSHOT_TOKENS, seed=self.run.config.training.seed)
            self.snapshots.append(Snapshot(step, validation_loss, text))
            self.folder.write_samples(self.snapshots)
            self.display.wrote(text)

    def kept(self) -> str:
        """What a run that failed still has, as the end of a sentence."""
        best = self.run.best
        if best is None:
            return ""
        path = shlex.quote(str(self.run.path))
        about = f"step {best.step:,}, validation loss {best.validation_loss:.4f}"
        return f"; the weights of the best evaluation ({about}) are kept: minigpt sample {path} --weights best"

    def close(self, status: Status, validation_loss: float | None = None) -> Record:
        """Write down in run.json how the run ended."""
        self.display.bar.stop()
        record = dataclasses.replace(
            self.run.record,
            status=status,
            step=self.step,
            validation_loss=validation_loss,
            training_seconds=self.training_seconds,
            evaluation_seconds=self.evaluation_seconds,
        )
        self.folder.write_record(record)
        return record

    def stepped(self, step: int) -> None:
        """Move the bar, at most a few times a second."""
        if time.perf_counter() - self.shown > SECONDS_BETWEEN_UPDATES:
            self.shown = time.perf_counter()
            self.display.stepped(step, step * self.tokens_a_step, self.training_seconds, self.seconds)

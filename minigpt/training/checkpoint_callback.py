"""The callback that writes checkpoints on a thread beside the training, and goes back to one after a loss spike."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from minigpt.distributed.sharded_checkpoint import save_sharded_tensors
from minigpt.errors import DivergedError
from minigpt.system.advice import format_setting
from minigpt.training.callbacks import Callback, Losses
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.checkpoint_format import MAX_SKIPS, SHARDS, CheckpointMetadata
from minigpt.training.evaluation_schedule import is_logged
from minigpt.training.training_state import TrainingState

Job = Callable[[], None]
MAX_WAITING = 4  # jobs; a training run that saves faster than the disk writes has to wait


class AsyncWriter:
    """Runs jobs one after another on one thread.

    A job's error is raised by a later call, in the calling thread. The jobs after a failed one do not run.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "writer")
        self.jobs: deque[Future[None]] = deque()
        self.has_failed = False

    def submit(self, job: Job) -> None:
        """Run a job soon. Waits if too many jobs wait already."""
        while self.jobs and (self.jobs[0].done() or len(self.jobs) >= MAX_WAITING):
            self.jobs.popleft().result()
        self.jobs.append(self.pool.submit(self._run, job))

    def flush(self) -> None:
        """Wait until every job is done."""
        while self.jobs:
            self.jobs.popleft().result()

    def stop(self) -> None:
        """Finish the running job, then stop. After an error, drop the queued jobs."""
        self.pool.shutdown(cancel_futures=True)

    def _run(self, job: Job) -> None:
        if self.has_failed:
            return
        try:
            job()
        except BaseException:
            self.has_failed = True
            raise


class Checkpointer(Callback):
    """Writes a checkpoint at each evaluation, and between evaluations every `save_minutes`.

    The tensors are copied at once, and written on another thread while the training goes on.
    """

    def __init__(
        self,
        run: Path,
        writer: AsyncWriter,
        say: Callable[..., None],
        get_merged_weights: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        """Prepare to write checkpoints into a run.

        Args:
            run: the run's directory.
            writer: the thread that writes.
            say: called with a sentence when the training goes back to a checkpoint.
            get_merged_weights: returns the weights of the run's model.safetensors, if they are not those of the
                checkpoint.
        """
        self.checkpoints, self.writer, self.say = CheckpointDirectory(run), writer, say
        self.get_merged_weights = get_merged_weights
        self.saved_at = 0.0

    def on_train_begin(self, state: TrainingState) -> None:
        """Count the minutes from here."""
        self.saved_at = state.clock.seconds

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Write a checkpoint of a regular evaluation, or of the last step, but not while the loss may be diverging."""
        is_regular = is_logged(state.step, state.config)
        if (is_regular and not state.spike_detector.is_suspicious) or state.is_last:
            is_best = is_regular and state.best is not None and state.best.step == state.step
            self._write(state, is_evaluated=is_regular, is_published=True, is_best=is_best)
            state.saved_step = state.step

    def on_step_end(self, state: TrainingState) -> None:
        """Write a checkpoint if the last one is too old, but not of broken weights: the next loss will report them."""
        is_due = state.clock.seconds - self.saved_at > 60 * state.config.save_minutes
        is_due = is_due and not state.spike_detector.is_suspicious
        if state.processes.any(is_due) and not state.processes.any(not state.has_finite_weights()):
            self._write(state, is_evaluated=False, is_published=False, is_best=False)

    def on_divergence(self, state: TrainingState, error: DivergedError) -> bool:
        """Restore the last checkpoint, and skip the batch at which the loss diverged.

        Raise DivergedError unless on_spike is "rollback", and after MAX_SKIPS skipped batches.
        """
        if state.config.on_spike != "rollback":
            raise DivergedError(
                f"{error}; or go back and skip that batch, with {format_setting('on_spike', 'rollback')}"
            )
        detector = state.spike_detector
        bad_position = detector.first_position if detector.is_suspicious else state.data.position
        skips = [*state.data.skip_positions, bad_position]
        if len(skips) > MAX_SKIPS:
            raise DivergedError(f"{error}; {MAX_SKIPS} batches were skipped already: lower the learning rate")
        self.writer.flush()
        state.processes.barrier()
        checkpoint = self.checkpoints.open_newest(self.say)
        state.restore(checkpoint)
        state.restore_weights(checkpoint)
        state.data.skip_positions = skips
        self.say(f"{error}; returning to step {state.step:,} and skipping that batch", "yellow")
        return True

    def _write(self, state: TrainingState, *, is_evaluated: bool, is_published: bool, is_best: bool) -> None:
        self.saved_at = state.clock.seconds
        metadata = CheckpointMetadata(
            step=state.step,
            is_evaluated=is_evaluated,
            position=state.data.position,
            training_seconds=state.clock.training_seconds,
            evaluation_seconds=state.clock.evaluation_seconds,
            skip_positions=" ".join(map(str, state.data.skip_positions)),
            is_published=is_published,
        )
        metrics, snapshots = [*state.metrics], [*state.snapshots]
        merged = None
        if self.get_merged_weights and is_published and state.processes.is_first:
            merged = _copy_to_cpu(self.get_merged_weights())
        if state.processes.size == 1:
            weights, tensors = _copy_to_cpu(state.weights()), _copy_to_cpu(state.tensors())
            self.writer.submit(
                lambda: self.checkpoints.write(
                    metadata, weights, tensors, metrics, snapshots, is_best=is_best, merged=merged
                )
            )
            return
        self.writer.flush()  # PyTorch would confuse two checkpoints that are written at the same time
        if state.processes.is_first:
            self.checkpoints.create(state.step)
        state.processes.barrier()
        directory = self.checkpoints.get_path(state.step) / SHARDS
        wait = save_sharded_tensors(directory, {**state.weights(), **state.tensors()}, state.processes)

        def finish() -> None:
            wait()
            if state.processes.is_first:
                self.checkpoints.commit(metadata, metrics, snapshots, is_best=is_best, merged=merged)

        self.writer.submit(finish)


def _copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

"""Callbacks of the training loop. They do not know each other: each reads the TrainingState, or changes it."""

from collections.abc import Mapping, Sequence

from torch import nn

from minigpt.config_fields import format_value
from minigpt.distributed.parallelism import gather_full_tensor
from minigpt.errors import ConfigError, DivergedError
from minigpt.model.language_model import evaluation_mode
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Metrics, Snapshot
from minigpt.training.display import Display
from minigpt.training.evaluation_schedule import get_snapshot_steps, is_logged
from minigpt.training.interrupt import Interrupt
from minigpt.training.learning_rate import get_learning_rate
from minigpt.training.training_state import TrainingState

SNAPSHOT_TOKENS = 80
SECONDS_BETWEEN_UPDATES = 0.1
Losses = Mapping[str, float]  # {"train": …, "val": …}, in nats per token


class Callback:
    """Base class of the callbacks: a subclass overrides the methods that it needs.

    `minigpt.train(callbacks=[…])` calls the methods of your callbacks after those of the built-in callbacks: at an
    evaluation, `state.metrics` and `state.snapshots` already have what was measured and written. With several
    processes, each one calls its own callbacks; the first has `state.processes.is_first`.

    An error in a callback ends the training as any error does. The run keeps its files, and `minigpt.resume` continues
    from its last checkpoint.
    """

    def on_train_begin(self, state: TrainingState) -> None:
        """Called before the first step. In a resumed run, the state is the checkpoint's."""

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Called after the losses at `state.step` are estimated. The time spent here counts as evaluation.

        That is at each eval_interval, at each sample (see `--snapshots`) and at the last step.

        Args:
            state: the state of the training.
            losses: "train" and "val", in nats per token.
        """

    def on_step_end(self, state: TrainingState) -> None:
        """Called after each step."""

    def on_divergence(self, state: TrainingState, error: DivergedError) -> bool:
        """Called when a loss jumps or is not finite. Return True after restoring an earlier state."""
        return False

    def on_train_end(self, state: TrainingState) -> None:
        """Called after the last step and the last evaluation, also if a signal stopped the training."""


def require_callbacks(callbacks: object) -> None:
    """Raise ConfigError for anything but a list of callbacks."""
    if not isinstance(callbacks, Sequence):
        raise ConfigError(f"callbacks must be a list of callbacks, not {format_value(callbacks)}: put it in brackets")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigError(
                f"callbacks must be objects of a subclass of minigpt.Callback, not {format_value(callback)}: make one"
            )


class StopOnSignal(Callback):
    """Ends the training after the step in which a signal arrived, in any of the processes."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def on_step_end(self, state: TrainingState) -> None:
        """Ask all processes."""
        if state.processes.any(bool(self.interrupt.received)):
            state.stop_reason = "interrupted"


class EarlyStopping(Callback):
    """Ends the training after `patience` evaluations without a better one; 0 never does."""

    def on_train_begin(self, state: TrainingState) -> None:
        """Stop a resumed training that had no patience left."""
        self._check(state)

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Count the evaluations since the best one."""
        self._check(state)

    def _check(self, state: TrainingState) -> None:
        patience = state.config.patience
        if patience and state.best and len(state.metrics) - 1 - state.metrics.index(state.best) >= patience:
            state.stop_reason = "patience"


class MetricsLog(Callback):
    """Appends each evaluation to the state's metrics, and writes metrics.jsonl."""

    def __init__(self, run: RunDirectory, characters_per_step: float) -> None:
        self.run, self.characters_per_step = run, characters_per_step

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Write a line at every eval_interval and at the last step, and none for a snapshot or a stop."""
        if is_logged(state.step, state.config):
            state.metrics.append(_make_metrics(state, losses, self.characters_per_step))
            if state.processes.is_first:
                self.run.write_metrics(state.metrics)


class ProgressBar(Callback):
    """Moves the progress bar, at most ten times a second."""

    def __init__(self, display: Display, characters_per_step: float) -> None:
        self.display, self.characters_per_step = display, characters_per_step
        self.last_update = 0.0

    def on_train_begin(self, state: TrainingState) -> None:
        """Show the bar."""
        self.display.start_bar(state.step)

    def on_step_end(self, state: TrainingState) -> None:
        """Move the bar if the last move was long enough ago."""
        seconds = state.clock.seconds
        if seconds - self.last_update > SECONDS_BETWEEN_UPDATES:
            self.last_update = seconds
            characters = state.step * self.characters_per_step
            self.display.update_bar(state.step, characters, state.clock.training_seconds, seconds)

    def on_train_end(self, state: TrainingState) -> None:
        """Remove the bar."""
        self.display.stop()


class EvaluationTable(Callback):
    """Prints a row at each evaluation."""

    def __init__(self, display: Display, characters_per_step: float) -> None:
        self.display, self.characters_per_step = display, characters_per_step

    def on_train_begin(self, state: TrainingState) -> None:
        """Print the header."""
        self.display.print_header()

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Print the row, in yellow if an earlier evaluation was better."""
        metrics = _make_metrics(state, losses, self.characters_per_step)
        earlier = [each.validation_loss for each in state.metrics if each.step < state.step]
        is_best = not earlier or metrics.validation_loss < min(earlier)
        self.display.print_row(metrics, state.clock.seconds, is_best)


class SnapshotWriter(Callback):
    """Lets the model write a text at some evaluations, and keeps the texts in snapshots.jsonl and samples.txt."""

    def __init__(self, run: Run, display: Display) -> None:
        self.run, self.display = run, display
        self.steps = get_snapshot_steps(run.config.training)

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Write a text, always from the same start and seed."""
        step = state.step
        if not state.processes.is_first or step not in self.steps or step in {s.step for s in state.snapshots}:
            return
        with evaluation_mode(self.run.model):  # once, not for each token
            text = self.run.generate(max_new_tokens=SNAPSHOT_TOKENS, seed=state.config.seed)
        state.snapshots.append(Snapshot(step, losses["val"], text))
        RunDirectory(self.run.path).write_snapshots(state.snapshots)
        self.display.show_snapshot(text)


class GatherShards(Callback):
    """Copies the whole weights of a sharded model into the first process's unsharded copy at each evaluation."""

    def __init__(self, unsharded: nn.Module) -> None:
        self.unsharded = unsharded

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Put each tensor together in all processes, and copy it in the first."""
        targets = self.unsharded.state_dict()
        for name, tensor in state.model.state_dict().items():
            value = gather_full_tensor(tensor)
            if state.processes.is_first:
                targets[name].copy_(value)


def _make_metrics(state: TrainingState, losses: Losses, characters_per_step: float) -> Metrics:
    """Return the current evaluation, as a line of metrics.jsonl has it."""
    last_step = min(state.step, state.config.max_iters - 1)
    return Metrics(
        step=state.step,
        train_loss=losses["train"],
        validation_loss=losses["val"],
        learning_rate=get_learning_rate(last_step, state.config),
        seconds=state.clock.training_seconds,
        characters=round(state.step * characters_per_step),
    )

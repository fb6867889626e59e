"""The run's journal: what happened at each evaluation, written down and shown."""

import dataclasses
import functools
import shlex
from collections.abc import Callable, Mapping

from torch import Tensor

from minigpt.data.dataset import Dataset
from minigpt.distributed.processes import ALONE, Processes
from minigpt.errors import DivergedError
from minigpt.model import LanguageModel
from minigpt.runs.run import Evaluation, Run
from minigpt.runs.run_directory import Metrics, Record, RunFolder, Snapshot, Status
from minigpt.training.async_writer import Writer
from minigpt.training.checkpoint import Moment, Save
from minigpt.training.display import Display
from minigpt.training.evaluation import estimate_loss
from minigpt.training.loop import Batches, Usual
from minigpt.training.optimizer import Optimizer, learning_rate
from minigpt.training.stopwatch import Stopwatch
from minigpt.training.training_state import Keeper

SNAPSHOT_TOKENS = 80
SECONDS_BETWEEN_UPDATES = 0.1


def snapshot_steps(count: int, max_iters: int) -> list[int]:
    """At most `count` different steps: 0, and the others evenly on a log scale from 1 to max_iters.

    >>> snapshot_steps(12, 5000)
    [0, 1, 2, 5, 13, 30, 71, 166, 388, 910, 2133, 5000]
    """
    if count < 2:
        return [max_iters] * count
    last = max(1, count - 2)
    return sorted({0, max_iters} | {round(max_iters ** (i / last)) for i in range(count - 2)})


@dataclasses.dataclass(frozen=True)
class Course:
    """What is not as usual in a training.

    Attributes:
        weights: gives what to save, if that isn't the model as it is.
        measure: gives the exact loss, if that isn't one of a text.
        look: called with the step at each evaluation that is written down; what to show.
        model: what is trained, if that isn't the run's model itself, whose weights it has.
        estimate: gives the losses that are shown, if that isn't `estimate_loss`.
        gather: called at each evaluation, to bring into the run's model what many processes have parts of.
        processes: those that train together; the first one writes.
    """

    weights: Callable[[], Mapping[str, Tensor]] | None = None
    measure: Callable[[], Evaluation] | None = None
    look: Callable[[int], str] | None = None
    model: LanguageModel | None = None
    estimate: Callable[..., dict[str, float]] = estimate_loss
    gather: Callable[[], None] | None = None
    processes: Processes = ALONE


class Journal(Stopwatch):
    """Keeps the time; at each evaluation logs, saves and shows; now and then lets the model write.

    Attributes:
        metrics: the evaluations so far; the run's own list.
        step: the last one whose weights are kept.
        snapshots: what the model wrote on the way.
    """

    def __init__(
        self, run: Run, display: Display, dataset: Batches, course: Course | None = None, save: Save | None = None
    ) -> None:
        """For a training of that run on that data, which goes on from a save, if one is given."""
        super().__init__()
        self.run = run
        self.folder = RunFolder(run.path)
        self.display = display
        self.metrics = run.metrics
        self.save = save
        self.step = save.moment.step if save else 0
        self.snapshots: list[Snapshot] = list(save.snapshots) if save else []
        self.shown = 0.0
        training = run.config.training
        self.dataset = dataset
        course = course or Course()
        self.weights = course.weights or run.model.state_dict
        self.look, self.gather, self.processes = course.look, course.gather, course.processes
        self.writer = Writer()
        self.keeper = None
        if isinstance(dataset, Dataset) and run.record.base is None:
            self.keeper = Keeper(run, dataset, course.model or run.model, course.processes)  # type: ignore[arg-type]
        tokens_per_step = training.gradient_accumulation * dataset.tokens_a_batch
        self.characters_a_step = tokens_per_step * run.record.data_characters / dataset.tokens
        self.snapshot_steps = snapshot_steps(training.snapshots, training.max_iters)

    def begin(self, optimizer: Optimizer, usual: Usual) -> int:
        """Start the clock and the table; the step to begin with, up to which all is as it was then."""
        if self.keeper:
            self.keeper.begin(optimizer, usual, self.save)
        if self.save:
            self.start(self.save.moment.training_seconds, self.save.moment.evaluation_seconds)
        else:
            self.start()
        self.saved_at = self.seconds
        self.display.begin(self.step)
        return self.step

    def due(self, step: int, last: bool = False) -> bool:
        """Whether to evaluate after `step` steps: every eval_interval, where the model is to write, and the last."""
        if self.save and self.save.moment.evaluated and step == self.save.moment.step:
            return False  # that is done
        return last or self.recorded(step) or step in self.snapshot_steps

    def recorded(self, step: int) -> bool:
        """Whether an evaluation after `step` steps is one of the run's metrics; one on being stopped is only shown."""
        training = self.run.config.training
        return step % training.eval_interval == 0 or step == training.max_iters

    def evaluated(self, step: int, train_loss: float, validation_loss: float, last: bool) -> None:
        """Show the losses after `step` steps; log them and save all; let the model write, where it is time."""
        training = self.run.config.training
        now = Metrics(
            step=step,
            train_loss=train_loss,
            validation_loss=validation_loss,
            learning_rate=learning_rate(min(step, training.max_iters - 1), training),
            seconds=self.training_seconds,
            characters=round(step * self.characters_a_step),
        )
        best_so_far = self.run.best is None or validation_loss < self.run.best.validation_loss
        if self.recorded(step):
            self.metrics.append(now)
        self.display.evaluated(now, self.seconds, best_so_far)
        if self.gather:
            self.gather()
        if self.processes.first and step in self.snapshot_steps and step not in {s.step for s in self.snapshots}:
            text = self.run.generate(max_new_tokens=SNAPSHOT_TOKENS, seed=training.seed)
            self.snapshots.append(Snapshot(step, validation_loss, text))
            self.writer.do(functools.partial(self.folder.write_snapshots, [*self.snapshots]))
            self.display.wrote(text)
        if last or self.recorded(step):
            self.keep(step, best_so_far and self.recorded(step))
        if self.look and self.step == step:
            self.display.say(f"         {self.look(step)}", "italic cyan")

    def keep(self, step: int, best_so_far: bool) -> None:
        """Have the weights after `step` steps written, and the metrics, and all that is needed to go on from here."""
        weights: dict[str, Tensor] = {}
        if self.processes.first:
            weights = self.copied()
            self.writer.do(functools.partial(self.folder.save_weights, weights, best_so_far))
            self.writer.do(functools.partial(self.folder.write_metrics, [*self.metrics]))
        self.step = step
        self.save_all(step, self.recorded(step), weights, kept=True)

    def copied(self) -> dict[str, Tensor]:
        """The weights as they are now, for the writer, while the training goes on to change them."""
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.weights().items()}

    def save_all(self, step: int, evaluated: bool, weights: Mapping[str, Tensor], kept: bool) -> None:
        """Have a save written, if this training can go on from one."""
        self.saved_at = self.seconds
        if self.keeper:
            data, seconds = self.keeper.dataset, (self.training_seconds, self.evaluation_seconds)
            if self.processes.size > 1:
                self.writer.wait()  # of many saves at once, the processes would take one for another
            moment = Moment(step, evaluated, data.position, *seconds, data.skipped, kept)
            self.writer.do(self.keeper.saving(moment, weights, self.metrics, self.snapshots))

    def enough(self) -> bool:
        """Whether the last evaluations, as many as patience has, brought nothing better."""
        patience = self.run.config.training.patience
        if not patience or self.run.best is None:
            return False
        return len(self.metrics) - 1 - self.metrics.index(self.run.best) >= patience

    def back(self, error: DivergedError) -> int:
        """Go back to the last save, and leave out the batch at which the loss jumped; the step of that save.

        Raises the error again if that was not asked for, can't be done, or was done before.
        """
        if not self.keeper or self.keeper.dataset.skipped:
            raise error
        if self.run.config.training.on_spike != "rollback":
            raise DivergedError(f"{error}; or go back and leave that batch out, by --on-spike rollback")
        bad = self.keeper.dataset.position
        self.writer.wait()
        self.processes.wait()
        self.save = self.keeper.saves.newest(self.display.say)
        self.keeper.restore(self.save)
        self.keeper.restore_weights(self.save)
        self.keeper.dataset.skipped = bad
        self.metrics[:], self.snapshots[:] = self.save.metrics, self.save.snapshots
        step = self.save.moment.step
        self.display.say(f"{error}; back to step {step:,}, and on without that batch", "yellow")
        return step

    def kept(self) -> str:
        """What a run that failed still has, as the end of a sentence."""
        best = self.run.best
        if best is None:
            return ""
        path = shlex.quote(str(self.run.path))
        about = f"step {best.step:,}, validation loss {best.validation_loss:.4f}"
        return f"; the weights of the best evaluation ({about}) are kept: minigpt sample {path} --weights best"

    def close(self, status: Status, exact: Evaluation | None = None) -> Record:
        """Write down in run.json how the run ended, once all else is written."""
        self.display.bar.stop()
        self.writer.wait()
        record = dataclasses.replace(
            self.run.record,
            status=status,
            step=self.step,
            validation_loss=exact.loss if exact else None,
            bits_per_byte=exact.bits_per_byte if exact else None,
            bits_per_character=exact.bits_per_character if exact else None,
            predictions=exact.predictions if exact else None,
            possible_predictions=exact.possible_predictions if exact else None,
            data_position=self.dataset.position,
            training_seconds=self.training_seconds,
            evaluation_seconds=self.evaluation_seconds,
        )
        if self.processes.first:
            self.folder.write_record(record)
        return record

    def stepped(self, step: int) -> None:
        """Move the bar, at most a few times a second; save, if that was long ago."""
        if self.seconds - self.shown > SECONDS_BETWEEN_UPDATES:
            self.shown = self.seconds
            self.display.stepped(step, step * self.characters_a_step, self.training_seconds, self.seconds)
        if self.keeper:
            [due] = self.processes.any(self.seconds - self.saved_at > 60 * self.run.config.training.save_minutes)
            if due and self.processes.any(self.keeper.spoiled()) == [False]:
                self.save_all(step, False, self.copied() if self.processes.size == 1 else {}, kept=False)

"""The run's journal: what happened at each evaluation, written down and shown."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping

from torch import Tensor

from minigpt.folder import Metrics, Record, RunFolder, Snapshot, Status
from minigpt.model import LanguageModel
from minigpt.run import Evaluation, Run
from minigpt.training.display import Display
from minigpt.training.evaluation import estimate_loss
from minigpt.training.loop import Batches
from minigpt.training.optimizer import learning_rate
from minigpt.training.stopwatch import Stopwatch

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
    """

    weights: Callable[[], Mapping[str, Tensor]] | None = None
    measure: Callable[[], Evaluation] | None = None
    look: Callable[[int], str] | None = None
    model: LanguageModel | None = None
    estimate: Callable[..., dict[str, float]] = estimate_loss


class Journal(Stopwatch):
    """Keeps the time; at each evaluation logs, saves and shows; now and then lets the model write.

    Attributes:
        metrics: the evaluations so far; the run's own list.
        step: the last one whose evaluation is on disk.
        snapshots: what the model wrote on the way.
    """

    def __init__(self, run: Run, display: Display, dataset: Batches, course: Course | None = None) -> None:
        """For a training of that run on that data."""
        super().__init__()
        self.run = run
        self.folder = RunFolder(run.path)
        self.display = display
        self.metrics = run.metrics
        self.step = 0
        self.snapshots: list[Snapshot] = []
        self.shown = 0.0
        training = run.config.training
        self.dataset = dataset
        course = course or Course()
        self.weights = course.weights or run.model.state_dict
        self.look = course.look
        tokens_a_step = training.gradient_accumulation * dataset.tokens_a_batch
        self.characters_a_step = tokens_a_step * run.record.data_characters / dataset.tokens
        self.snapshot_steps = snapshot_steps(training.snapshots, training.max_iters)

    def begin(self) -> None:
        """Start the clock and the table."""
        super().begin()
        self.display.begin()

    def due(self, step: int) -> bool:
        """Whether to evaluate after `step` steps: every eval_interval steps, and where the model is to write."""
        return step % self.run.config.training.eval_interval == 0 or step in self.snapshot_steps

    def evaluated(self, step: int, train_loss: float, validation_loss: float, last: bool) -> None:
        """Show the losses after `step` steps; log them and save the weights; let the model write, where it is time."""
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
        if last or step % training.eval_interval == 0:
            self.folder.save_weights(self.weights(), best_so_far)
            self.metrics.append(now)
            self.folder.write_metrics(self.metrics)
            self.step = step
        self.display.evaluated(now, self.seconds, best_so_far)
        if self.look and self.step == step:
            self.display.say(f"         {self.look(step)}", "italic cyan")
        if step in self.snapshot_steps:
            text = self.run.generate(max_new_tokens=SNAPSHOT_TOKENS, seed=training.seed)
            self.snapshots.append(Snapshot(step, validation_loss, text))
            self.folder.write_snapshots(self.snapshots)
            self.display.wrote(text)

    def kept(self) -> str:
        """What a run that failed still has, as the end of a sentence."""
        best = self.run.best
        if best is None:
            return ""
        path = shlex.quote(str(self.run.path))
        about = f"step {best.step:,}, validation loss {best.validation_loss:.4f}"
        return f"; the weights of the best evaluation ({about}) are kept: minigpt sample {path} --weights best"

    def close(self, status: Status, exact: Evaluation | None = None) -> Record:
        """Write down in run.json how the run ended."""
        self.display.bar.stop()
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
        self.folder.write_record(record)
        return record

    def stepped(self, step: int) -> None:
        """Move the bar, at most a few times a second."""
        if self.seconds - self.shown > SECONDS_BETWEEN_UPDATES:
            self.shown = self.seconds
            self.display.stepped(step, step * self.characters_a_step, self.training_seconds, self.seconds)

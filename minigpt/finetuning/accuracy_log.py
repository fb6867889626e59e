"""The accuracy of each task at each evaluation, in tasks.jsonl and tasks.png."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from minigpt.errors import RunError
from minigpt.finetuning.accuracy import measure_accuracy_by_task
from minigpt.finetuning.examples import Example
from minigpt.model import TrainedModel
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.files import write_atomic
from minigpt.system.json_files import parse_json, read_run_file
from minigpt.system.plotting import create_figure, replace_undrawable, write_plain_numbers, write_png
from minigpt.tokenizers.chat_format import ChatTemplate
from minigpt.training.callbacks import Callback, Losses
from minigpt.training.training_state import TrainingState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES_PER_TASK = 100


class AccuracyLog(Callback):
    """Measures the accuracy of each task at each evaluation, and writes tasks.jsonl.

    Attributes:
        shares: accuracies by task, one for each evaluation.
        steps: the steps of the evaluations.
    """

    def __init__(
        self,
        run: RunDirectory,
        model: TrainedModel,
        template: ChatTemplate,
        test: Mapping[str, Sequence[Example]],
        say: Callable[[str, str], None],
    ) -> None:
        """Prepare to measure on at most 100 examples of each task.

        Args:
            run: the run's directory.
            model: the model that trains.
            template: the chat format.
            test: the held-out examples of each task.
            say: prints a line in a style.
        """
        self.run, self.model, self.template, self.say = run, model, template, say
        self.test = {task: examples[:EXAMPLES_PER_TASK] for task, examples in test.items()}
        self.steps: list[int] = []
        self.shares: dict[str, list[float]] = {task: [] for task in test}

    def on_train_begin(self, state: TrainingState) -> None:
        """Read the accuracies of a resumed run up to its checkpoint. Raise RunError if the file is damaged."""
        if self.run.task_log.exists():
            self._read(state.step)
        if state.is_evaluated and state.step not in self.steps:  # the process ended before it wrote them
            self._measure(state.step)

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Measure, write and print the accuracies, where the evaluation is also saved."""
        if state.saved_step == state.step:
            self._measure(state.step)

    def _read(self, last_step: int) -> None:
        where = f"{str(self.run.task_log)!r}"
        for line in read_run_file(self.run.task_log).splitlines():
            content = parse_json(line, where)
            try:
                step, accuracy = int(content["step"]), {task: float(content["accuracy"][task]) for task in self.shares}
            except (KeyError, TypeError, ValueError):
                raise RunError(f"{where} is damaged: delete it, and the curves begin here") from None
            if step <= last_step:
                self.steps.append(step)
                for task, share in accuracy.items():
                    self.shares[task].append(share)

    def _measure(self, step: int) -> None:
        self.steps.append(step)
        for task, found in measure_accuracy_by_task(self.model, self.template, self.test).items():
            self.shares[task].append(found.share)
        lines = [
            json.dumps({"step": step, "accuracy": {task: shares[n] for task, shares in self.shares.items()}})
            for n, step in enumerate(self.steps)
        ]
        write_atomic(self.run.task_log, "".join(f"{line}\n" for line in lines).encode())
        summary = ", ".join(f"{task} {shares[-1]:.0%}" for task, shares in self.shares.items())
        self.say(f"         {summary}", "italic cyan")

    def write_plot(self) -> None:
        """Write tasks.png into the run's directory: a curve for each task. Raise FileError."""
        write_png(self.run.task_plot, self.draw())

    def draw(self) -> "Figure":
        """Draw a curve for each task."""
        figure = create_figure(9, 5)
        axes = figure.subplots()
        for n, (task, shares) in enumerate(self.shares.items()):
            axes.plot(
                self.steps,
                [100 * share for share in shares],
                label=replace_undrawable(task),
                color=f"C{n % 10}",
                linestyle="-" if n < 10 else "--",
            )
        axes.set(
            title=f"Held-out answers that are right, of {EXAMPLES_PER_TASK} a task",
            xlabel="step",
            ylabel="right answers (%)",
            ylim=(-3, 103),
        )
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
        write_plain_numbers(axes.xaxis)
        return figure

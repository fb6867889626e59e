"""How a model comes to follow instructions: its accuracy by task at each evaluation, written down and drawn."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from minigpt.finetuning.accuracy import accuracies
from minigpt.finetuning.sft_dataset import Example
from minigpt.model import TrainedModel
from minigpt.system.files import write_atomic
from minigpt.system.plotting import create_figure, replace_undrawable, write_png
from minigpt.tokenizers.chat_format import ChatTemplate

LINES, FIGURE = "tasks.jsonl", "tasks.png"
ASKED = 100  # of each task


class Progress:
    """Keeps the accuracies, in tasks.jsonl in the run's folder.

    Attributes:
        shares: by task, at each evaluation.
        steps: when.
    """

    def __init__(self, model: TrainedModel, template: ChatTemplate, test: Mapping[str, Sequence[Example]]) -> None:
        self.model, self.template = model, template
        self.test = {task: examples[:ASKED] for task, examples in test.items()}
        self.steps: list[int] = []
        self.shares: dict[str, list[float]] = {task: [] for task in test}

    def look(self, step: int, run: Path) -> str:
        """Measure after so many steps, write it into the run's folder, and say it in a line."""
        self.steps.append(step)
        for task, found in accuracies(self.model, self.template, self.test).items():
            self.shares[task].append(found.share)
        lines = [
            json.dumps({"step": now, "accuracy": {task: shares[n] for task, shares in self.shares.items()}})
            for n, now in enumerate(self.steps)
        ]
        write_atomic(run / LINES, "".join(f"{line}\n" for line in lines).encode())
        return ", ".join(f"{task} {shares[-1]:.0%}" for task, shares in self.shares.items())

    def draw(self, run: Path) -> None:
        """Write tasks.png into the run's folder: a curve for each task. Raises FileError."""
        figure = create_figure(9, 5)
        axes = figure.subplots()
        for n, (task, shares) in enumerate(self.shares.items()):
            axes.plot(
                self.steps,
                shares,
                label=replace_undrawable(task),
                color=f"C{n % 10}",
                linestyle="-" if n < 10 else "--",
            )
        axes.set(title=f"Held-out answers that are right, of {ASKED} a task", xlabel="step", ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
        write_png(run / FIGURE, figure)

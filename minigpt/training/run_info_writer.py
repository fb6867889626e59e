"""The callback that writes run.json: with which kernels a training began, and how it ended."""

import dataclasses
import shlex

from minigpt.runs.exact_loss import ExactLoss
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import RunInfo, Status
from minigpt.system.advice import choose_advice
from minigpt.training.callbacks import Callback
from minigpt.training.display import Display
from minigpt.training.training_state import TrainingState


class RunInfoWriter(Callback):
    """Writes run.json: the kernels at the start; the status, the times and the losses at the end, also after a failure.

    Attributes:
        is_written: True once the end of the training is on disk.
    """

    def __init__(self, run: Run, display: Display) -> None:
        self.path, self.info, self.display = run.path, run.info, display
        self.state: TrainingState | None = None
        self.is_written = False

    def on_train_begin(self, state: TrainingState) -> None:
        """Keep the state, which `write` needs even after an error. Say if a resumed run has other kernels."""
        self.state = state
        state.saved_step = self.info.step
        before, now = self.info.kernels, ", ".join(state.kernels)
        if before not in (None, now):
            self.display.say(
                f"the run was trained with {before or 'no kernels'} and resumes with {now or 'no kernels'}: "
                "the bits will differ from those of a run without the stop",
                "yellow",
            )
        self.info = dataclasses.replace(self.info, kernels=now)
        if state.processes.is_first:
            RunDirectory(self.path).write_info(self.info)

    def write(self, status: Status, exact: ExactLoss | None = None) -> RunInfo:
        """Write how the training ended, and return what run.json then says.

        Args:
            status: how it ended.
            exact: the exact loss at the end, if it was measured.
        """
        info = dataclasses.replace(self.info, status=status)
        if self.state:
            info = dataclasses.replace(
                info,
                step=self.state.saved_step,
                data_position=self.state.data.position,
                training_seconds=self.state.clock.training_seconds,
                evaluation_seconds=self.state.clock.evaluation_seconds,
            )
        if exact:
            info = dataclasses.replace(
                info,
                validation_loss=exact.loss,
                bits_per_byte=exact.bits_per_byte,
                bits_per_character=exact.bits_per_character,
                predictions=exact.predictions,
                possible_predictions=exact.possible_predictions,
            )
        if self.state is None or self.state.processes.is_first:
            RunDirectory(self.path).write_info(info)
        self.is_written = True
        return info

    def describe_best(self) -> str:
        """Return the end of a sentence: which weights of a failed training are kept."""
        best = self.state and self.state.best
        if not best:
            return ""
        command = f"minigpt sample {shlex.quote(str(self.path))} --weights best"
        call = f"minigpt.load({str(self.path)!r}, weights='best')"
        return (
            f"; the weights of the best evaluation (step {best.step:,}, validation loss {best.validation_loss:.4f}) "
            f"are kept: {choose_advice(command, call)}"
        )

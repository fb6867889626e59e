"""Callbacks of the user: when they are called, and what an error in one does."""

from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

import minigpt
from minigpt.errors import ConfigError
from minigpt.training.callbacks import Losses
from minigpt.training.training_state import TrainingState

SETTINGS = TINY | {"max_iters": 4, "eval_interval": 2, "device": "cpu"}


class Diary(minigpt.Callback):
    """Notes each call, with the step and the number of evaluations that the run has by then."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, int, int]] = []

    def on_train_begin(self, state: TrainingState) -> None:
        self.notes.append(("begin", state.step, len(state.metrics)))

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        assert losses["val"] == state.metrics[-1].validation_loss
        self.notes.append(("evaluate", state.step, len(state.metrics)))

    def on_step_end(self, state: TrainingState) -> None:
        self.notes.append(("step", state.step, len(state.metrics)))

    def on_train_end(self, state: TrainingState) -> None:
        self.notes.append(("end", state.step, len(state.metrics)))


REST = [("step", 3, 2), ("step", 4, 2), ("evaluate", 4, 3), ("end", 4, 3)]
NOTES = [("begin", 0, 0), ("evaluate", 0, 1), ("step", 1, 1), ("step", 2, 1), ("evaluate", 2, 2), *REST]


def test_a_callback_is_called_at_the_moments_that_its_class_lists(text_file: Path, tmp_path: Path) -> None:
    first, second, tuned, longer = (Diary() for _ in range(4))
    run = minigpt.train(data=text_file, out=tmp_path / "run", callbacks=[first, second], **SETTINGS)
    assert first.notes == second.notes == NOTES
    more = {"data": text_file, "method": "lora", "out": tmp_path / "tuned", "max_iters": 4, "eval_interval": 2}
    adapted = minigpt.finetune(run, callbacks=[tuned], **more)
    assert tuned.notes == NOTES
    minigpt.resume(adapted.path, max_iters=5, callbacks=[longer])
    assert longer.notes == [("begin", 4, 3), ("step", 5, 3), ("evaluate", 5, 4), ("end", 5, 4)]


class Failure(minigpt.Callback):
    """Fails after step 3."""

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == 3:
            raise ZeroDivisionError("mine")


def test_an_error_in_a_callback_ends_the_training_and_the_run_resumes(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        minigpt.train(data=text_file, out=tmp_path / "run", callbacks=[Failure()], **SETTINGS)
    assert minigpt.load(tmp_path / "run").info.status == "unfinished"
    diary = Diary()
    resumed = minigpt.resume(tmp_path / "run", callbacks=[diary])
    assert diary.notes[-4:] == REST
    assert [metrics.step for metrics in resumed.metrics] == [0, 2, 4]


@pytest.mark.parametrize("wrong", [Diary(), Diary, [Diary], [print], "tensorboard", 3])
def test_what_is_no_list_of_callbacks_is_refused_at_once(wrong: Any, text_file: Path, tmp_path: Path) -> None:
    for call, arguments in (
        (minigpt.train, {"data": text_file, "out": tmp_path / "run"}),
        (minigpt.resume, {"path": tmp_path / "run"}),
        (minigpt.finetune, {"run": tmp_path / "run", "data": text_file}),
    ):
        with pytest.raises(ConfigError, match="callbacks must be "):
            call(callbacks=wrong, **arguments)
    assert not list(tmp_path.iterdir())

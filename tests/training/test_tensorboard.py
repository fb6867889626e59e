"""TensorBoard's event file holds what the run's own files hold, whatever happened to the training."""

import dataclasses
import html
import itertools
import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fault_injection
import pytest
from answer_training import train_to_answer
from conftest import TINY
from lazy_module import LazyModule

import minigpt
from minigpt.config import Config
from minigpt.distributed.process_group import Processes
from minigpt.errors import DivergedError, MissingExtraError
from minigpt.finetuning.method import derive_config
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Snapshot
from minigpt.training.callbacks import Callback, Losses
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.stopwatch import Stopwatch
from minigpt.training.tensorboard_log import TensorBoardLog, _summarize_sample
from minigpt.training.train import train
from minigpt.training.training_state import TrainingState

accumulators = LazyModule("tensorboard.backend.event_processing.event_accumulator")
plugin_util = LazyModule("tensorboard.plugin_util")
SETTINGS = TINY | {"snapshots": 3, "device": "cpu", "log_to": "tensorboard"}
LOSSES = ("loss/train", "loss/validation", "learning_rate")


def read_events(run: Path) -> Any:
    """All events of a run's directory, as TensorBoard reads them."""
    return accumulators.EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def check_events(path: Path) -> None:
    """The event file has each evaluation and each sample of the run once, and nothing else."""
    events, directory = read_events(path), RunDirectory(path)
    metrics, snapshots = directory.read_metrics(directory.read_info()), directory.read_snapshots()
    logged = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    expected = [(m.step, (m.train_loss, m.validation_loss, m.learning_rate)) for m in metrics]
    for n, tag in enumerate(LOSSES):
        assert logged.pop(tag) == [(step, pytest.approx(values[n], rel=1e-6)) for step, values in expected]
    pairs = itertools.pairwise(metrics)
    speeds = [(b.step, (b.characters - a.characters) / (b.seconds - a.seconds)) for a, b in pairs]
    assert logged == {"characters_per_second": [(step, pytest.approx(speed, rel=1e-6)) for step, speed in speeds]}
    times = [e.wall_time for e in events.Scalars(LOSSES[0])]
    seconds = [m.seconds - metrics[0].seconds for m in metrics]
    assert [t - times[0] for t in times] == pytest.approx(seconds, abs=1e-5)
    tensors = events.Tensors("sample") if snapshots else []
    texts = [(e.step, e.tensor_proto.string_val[0].decode().replace("    ", "")) for e in tensors]
    assert texts == [(s.step, s.text) for s in snapshots]
    *old, newest = [file.stat().st_size for file in directory.list_event_files()]
    assert old in ([], [0])
    assert newest


@pytest.fixture(scope="module")
def logged(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return minigpt.train(data=text_file, out=tmp_path_factory.mktemp("logged") / "run", **SETTINGS)


@pytest.fixture
def copy(logged: Run, tmp_path: Path) -> Path:
    shutil.copytree(logged.path, tmp_path / "run")
    return tmp_path / "run"


def test_the_event_file_has_the_metrics_and_the_samples(logged: Run) -> None:
    assert [m.step for m in logged.metrics] == [0, 20, 40, 60]
    assert len(RunDirectory(logged.path).read_snapshots()) == 3
    check_events(logged.path)


def test_a_resumed_run_goes_on_logging_and_logs_no_step_twice(copy: Path) -> None:
    longer = minigpt.resume(copy, max_iters=80)
    assert longer.config.training.log_to == "tensorboard"
    check_events(copy)
    silent = minigpt.resume(copy, max_iters=90, log_to="none")
    assert read_events(copy).Scalars(LOSSES[0])[-1].step == 80
    assert silent.config.training.log_to == "none"
    minigpt.resume(copy, max_iters=100, log_to="tensorboard")
    check_events(copy)


def test_a_reader_that_stays_open_forgets_the_file_before_the_resume(copy: Path) -> None:
    reader = read_events(copy)
    minigpt.resume(copy, max_iters=80)
    steps = [event.step for event in reader.Reload().Scalars(LOSSES[0])]
    assert steps == [0, 20, 40, 60, 80]


def test_a_training_killed_between_an_evaluation_and_its_checkpoint_logs_each_step_once(copy: Path) -> None:
    directory = RunDirectory(copy)
    directory.write_info(dataclasses.replace(directory.read_info(), status="unfinished"))
    shutil.rmtree(CheckpointDirectory(copy).list_paths()[0])  # the evaluation at step 60 lost its checkpoint
    file = directory.list_event_files()[-1]
    with file.open("ab") as half:
        half.write(file.read_bytes()[-20:])
    resumed = minigpt.resume(copy, max_iters=70, eval_interval=50)
    assert [m.step for m in resumed.metrics] == [0, 20, 40, 50, 70]
    check_events(copy)


def test_a_training_killed_at_a_write_resumes_with_each_step_logged_once(text_file: Path, tmp_path: Path) -> None:
    work = fault_injection.training(fault_injection.SETTINGS | {"data": text_file, "log_to": "tensorboard"})
    assert work.finish(tmp_path, (160, "kill")) == -signal.SIGKILL
    assert len(read_events(tmp_path / "run").Scalars(LOSSES[0])) >= 2
    assert work.finish(tmp_path) == 0, (tmp_path / "errors.txt").read_text()
    check_events(tmp_path / "run")


class Rollback(Callback):
    """Calls the losses after step 20 suspicious, so that no checkpoint is written, and lets them diverge at step 60."""

    def __init__(self) -> None:
        self.is_done = False

    def on_step_end(self, state: TrainingState) -> None:
        if state.step > 20 and not self.is_done:
            state.spike_detector.high, state.spike_detector.first_position = 1, state.data.position

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        if state.step == 60 and not self.is_done:
            self.is_done = True
            raise DivergedError("the loss jumps")


def test_a_rollback_logs_no_step_twice(text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    config = Config().override(**SETTINGS | {"max_iters": 80, "on_spike": "rollback"})
    run = train(config, text_file, tmp_path / "run", callbacks=[Rollback()])
    assert "returning to step 20" in capfd.readouterr().err
    check_events(run.path)


class BlockedFile(Callback):
    """Puts a folder in the place of the event file at one step, and at another the file, with half of an event."""

    def __init__(self, directory: RunDirectory, start: int, end: int) -> None:
        self.directory, self.start, self.end = directory, start, end

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.start:
            (self.file,) = self.directory.list_event_files()
            self.content = self.file.read_bytes()
            self.file.unlink()
            self.file.mkdir()
        if state.step == self.end:
            self.file.rmdir()
            self.file.write_bytes(self.content[:-9])


def test_a_file_that_cannot_be_written_does_not_end_the_training(text_file: Path, tmp_path: Path) -> None:
    blocked = BlockedFile(RunDirectory(tmp_path / "run"), 30, 50)
    with pytest.warns(UserWarning, match=r"cannot write .*tfevents.* the training goes on, and tries again"):
        run = train(Config().override(**SETTINGS), text_file, tmp_path / "run", callbacks=[blocked])
    assert run.info.status == "finished"
    check_events(run.path)


def test_a_deleted_file_is_written_again(text_file: Path, tmp_path: Path) -> None:
    class Deletion(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            if state.step == 30:
                RunDirectory(tmp_path / "run").list_event_files()[0].unlink()

    train(Config().override(**SETTINGS), text_file, tmp_path / "run", callbacks=[Deletion()])
    check_events(tmp_path / "run")


def test_only_the_first_of_several_processes_writes(logged: Run, tmp_path: Path) -> None:
    for rank in (1, 0):
        state: Any = SimpleNamespace(
            step=60, metrics=logged.metrics, snapshots=[], clock=Stopwatch(), processes=Processes(rank, 2)
        )
        log = TensorBoardLog(RunDirectory(tmp_path))
        log.on_train_begin(state)
        log.on_evaluate(state, {})
        assert bool(list(tmp_path.iterdir())) == (rank == 0)


def test_overwriting_a_run_removes_its_event_file(text_file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run = minigpt.train(data=text_file, out=tmp_path / "run", overwrite=True, **SETTINGS | {"max_iters": 20})
        check_events(run.path)
    minigpt.train(data=text_file, out=run.path, overwrite=True, **SETTINGS | {"max_iters": 20, "log_to": "none"})
    assert not RunDirectory(run.path).list_event_files()


def test_every_kind_of_fine_tuning_logs_if_asked(logged: Run, text_file: Path, tmp_path: Path) -> None:
    settings = {"max_iters": 4, "eval_interval": 2, "batch_size": 4}
    assert derive_config(logged, "lora", {}).training.log_to == "none"
    adapted = minigpt.finetune(logged, data=text_file, out=tmp_path / "lora", log_to="tensorboard", **settings)
    check_events(adapted.path)
    minigpt.resume(adapted.path, max_iters=6)
    check_events(adapted.path)
    instructed = train_to_answer(logged, tmp_path, "ab", 4, log_to="tensorboard", batch_size=4).run
    check_events(instructed.path)
    pairs = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    settings |= {"preferences": tmp_path / "pairs.jsonl", "log_to": "tensorboard"}
    check_events(minigpt.finetune(instructed, out=tmp_path / "dpo", **settings).path)


def test_a_missing_package_is_named_before_anything_is_written(
    text_file: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = r"the package tensorboard is not installed: install it with pip install 'mini-gpt\[tensorboard\]'$"
    before = sorted(path.stat().st_mtime_ns for path in copy.rglob("*"))
    with pytest.raises(MissingExtraError, match=message):
        minigpt.train(data=text_file, out=tmp_path / "new", **SETTINGS)
    with pytest.raises(MissingExtraError, match=message):
        minigpt.resume(copy, max_iters=80)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"instruction": "q{n}", "output": "a"}}\n' for n in range(40)))
    for data in (text_file, tmp_path / "a.jsonl"):
        with pytest.raises(MissingExtraError, match=message):
            minigpt.finetune(copy, data=data, out=tmp_path / "tuned", log_to="tensorboard", max_iters=2)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "a.jsonl"}
    assert sorted(path.stat().st_mtime_ns for path in copy.rglob("*")) == before
    assert minigpt.resume(copy, max_iters=80, log_to="none").info.step == 80


HOSTILE = [
    "<script>alert(1)</script>",
    "a\n\n<div onclick='x()'>\n</div>",
    "```\n</code></pre><b>\n```",
    "~~~ html\n# no heading\n~~~",
    "# no heading\n===\n\n* no *list*\n1. **no** list",
    "[no](javascript:alert(1)) ![no](http://example.org/x.png)\n\n[id]: http://example.org 'title'",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "<!-- never closed\n\n<?php\n\n<![CDATA[ & &amp; &lt;",
    "  \tindented \\* and \\` escaped",
    "> no quotation\n\n---\n***",
    "one\u2028two\u2029three",
    "<pre>\nkeeps\n</textarea><style>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_tensorboard_shows_a_sample_as_it_is(text: str) -> None:
    (value,) = _summarize_sample(Snapshot(0, 1.0, text)).value
    shown = plugin_util.markdown_to_safe_html(value.tensor.string_val[0])
    assert shown.startswith("<pre><code>")
    assert shown.endswith("\n</code></pre>")
    inside = shown.removeprefix("<pre><code>").removesuffix("\n</code></pre>")
    assert "<" not in inside
    assert html.unescape(inside) == text.replace("  \t", "    ")


def test_control_characters_of_a_sample_are_visible_signs() -> None:
    (value,) = _summarize_sample(Snapshot(0, 1.0, "a\r\n\x02b\x03 \x1b[31m \ud800\x00")).value
    assert value.tensor.string_val[0].decode() == "    a␍\n    ␂b␃ ␛[31m ⟨U+D800⟩␀"

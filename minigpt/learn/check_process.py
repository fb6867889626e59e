"""The process in which the learner's code runs: `check_process FOLDER RESULTS TEXT SECONDS NUMBER…`.

It writes a line of JSON for each exercise to the file RESULTS, and ends itself when the learner's code takes too long.
"""

import contextlib
import dataclasses
import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minigpt.learn.catalog import Entry, get_entry, load_exercise
from minigpt.learn.exercise import Exercise, WorkbookError
from minigpt.learn.judge import Verdict, expect, judge
from minigpt.learn.outcomes import Raised, describe_exception
from minigpt.learn.parts import forget_own_parts, list_own_parts, run_learner_file
from minigpt.learn.workbook import Workbook
from minigpt.system.thread_waiting import avoid_spinning_when_busy

TIME_LIMIT = 10.0  # seconds of the learner's code; imports of libraries do not count
TRIAL_LIMIT = 400.0  # seconds of a trial, such as the training of exercise 23
TIME_OVER = 75  # the exit status after a time limit
MAX_PRINTED = 5000  # characters that are kept


class Output(io.StringIO):
    """Standard output and error of the learner's code; too long an output is cut."""

    def write(self, text: str) -> int:
        """Keep the text if there is room."""
        if self.tell() < MAX_PRINTED:
            super().write(text[:MAX_PRINTED])
        return len(text)


def check_file(
    entry: Entry, workbook: Workbook, text_path: str = "", results: Path | None = None, seconds: float = TIME_LIMIT
) -> Verdict:
    """Run a learner's file and judge it, with the output kept and the time limited.

    Args:
        entry: the exercise.
        workbook: its folder.
        text_path: the text of a trial.
        results: where to write the verdict if the time is over. The process then ends.
        seconds: the time limit.
    """
    exercise = load_exercise(entry)
    expect(exercise)  # the imports happen here, before the clock starts
    forget_own_parts()
    path = workbook.get_path(entry).resolve()
    output, started = Output(), time.monotonic()
    with _redirect(output), _limit_time(entry, path, output, results, seconds):
        verdict = _judge_file(entry, exercise, path)
    if verdict.passed and exercise.trial and text_path:
        with _redirect(output), _limit_time(entry, path, output, results, TRIAL_LIMIT):
            verdict = _run_trial(entry, exercise, path, text_path)
    elapsed = time.monotonic() - started
    return dataclasses.replace(verdict, printed=output.getvalue().strip(), seconds=round(elapsed, 2))


def _judge_file(entry: Entry, exercise: Exercise, path: Path) -> Verdict:
    """Run the file and compare what it defines with the reference."""
    module = _run(entry, path)
    if isinstance(module, Verdict):
        return module
    verdict = judge(entry, exercise, module, {str(path)})
    if verdict.passed and exercise.parts:
        own = list_own_parts()
        borrowed = [name for name in exercise.parts if name not in own]
        used = f"Your own parts in it: {', '.join(own) or 'none'}."
        if borrowed:
            used += f" The package's: {', '.join(borrowed)}."
        verdict = dataclasses.replace(verdict, message=f"{verdict.message} {used}")
    return verdict


def _run(entry: Entry, path: Path) -> Any:
    """Run the file; return the module, or a verdict if it raises an exception."""
    try:
        return run_learner_file(path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        raised = describe_exception(error, {str(path)})
        return Verdict(entry.number, False, _describe_failed_start(path, raised), line=raised.line)


def _describe_failed_start(path: Path, raised: Raised) -> str:
    """Return the sentence for a file that cannot be run."""
    if raised.kind == "SyntaxError":
        return f"{path.name} is not valid Python: {raised.message}."
    if raised.kind == "SystemExit":
        return f"{path.name} calls exit(), so it ends before the check: remove the call."
    return f"{path.name} cannot be run: {raised.kind}: {raised.message}"


def _run_trial(entry: Entry, exercise: Exercise, path: Path, text_path: str) -> Verdict:
    """Run the long last check of an exercise."""
    assert exercise.trial is not None
    module = run_learner_file(path)
    text = Path(text_path).read_bytes().decode()
    try:
        message = exercise.trial(module, text, lambda line: print(line, file=sys.__stderr__, flush=True))
    except WorkbookError as error:
        return Verdict(entry.number, False, str(error))
    except Exception as error:
        raised = describe_exception(error, {str(path)})
        return Verdict(entry.number, False, f"{raised.kind}: {raised.message}", line=raised.line)
    return Verdict(entry.number, True, message)


@contextlib.contextmanager
def _redirect(output: Output) -> Iterator[None]:
    """Keep what the learner's code prints."""
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        yield


@contextlib.contextmanager
def _limit_time(entry: Entry, path: Path, output: Output, results: Path | None, seconds: float) -> Iterator[None]:
    """End this process with a verdict if the code in the block takes too long."""
    main_thread = threading.get_ident()

    def end_process() -> None:
        frame, line = sys._current_frames().get(main_thread), ""
        while frame and frame.f_code.co_filename != str(path):
            frame = frame.f_back
        if frame:
            line = f"line {frame.f_lineno}: {path.read_text(encoding='utf-8').splitlines()[frame.f_lineno - 1].strip()}"
        message = f"Your code ran for {seconds:g} seconds without an end: is there an endless loop?"
        if entry.has_trial:
            message += " The training must look at the clock before each step, and a step must be short."
        verdict = Verdict(entry.number, False, message, line=line, printed=output.getvalue().strip(), seconds=seconds)
        assert results is not None
        write_verdict(verdict, results)
        os._exit(TIME_OVER)

    timer = threading.Timer(seconds, end_process)
    timer.daemon = True
    if results is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def write_verdict(verdict: Verdict, results: Path) -> None:
    """Append a verdict to the file of results, as a line of JSON."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(verdict)) + "\n")


def check_exercises(arguments: Sequence[str]) -> None:
    """Check exercises, and write the verdicts to a file.

    Args:
        arguments: FOLDER RESULTS TEXT SECONDS NUMBER…, as on the command line.
    """
    folder, results, text_path, seconds, *numbers = arguments
    sys.dont_write_bytecode = True
    workbook = Workbook(Path(folder))
    with avoid_spinning_when_busy():
        for number in numbers:
            entry = get_entry(int(number))
            digest = workbook.compute_digest(entry)
            verdict = check_file(entry, workbook, text_path, Path(results), float(seconds))
            if text_path or not entry.has_trial:  # an exercise that needs its part finds it in the workbook's notes
                workbook.record_check(entry, verdict.passed, digest)
            write_verdict(verdict, Path(results))


if __name__ == "__main__":
    check_exercises(sys.argv[1:])

"""Judge the learner's code: it is right, or a known mistake fits, or the smallest difference is shown."""

import functools
import inspect
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from minigpt.errors import ConfigError
from minigpt.learn.advice import find_advice
from minigpt.learn.catalog import Entry, get_entry, load_exercise
from minigpt.learn.exercise import Exercise, Mistake, WorkbookError
from minigpt.learn.outcomes import (
    Difference,
    Raised,
    find_difference,
    format_side_by_side,
    is_same,
    run_case,
    run_cases,
)
from minigpt.learn.skeleton import TODO_MESSAGE


@dataclass(frozen=True)
class Verdict:
    """What a check found. It is true if the code passed.

    Attributes:
        number: the exercise.
        passed: True if the code is right.
        message: what is right, or wrong, in a sentence or two.
        mistake: what the learner's code does, if it is a known mistake.
        line: the learner's own line at which an error happened.
        detail: the two results side by side.
        printed: what the learner's code printed.
        seconds: the time of the check.
    """

    number: int
    passed: bool
    message: str
    mistake: str | None = None
    line: str = ""
    detail: str = ""
    printed: str = ""
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return "\n".join(part for part in (self.message, self.line and f"  {self.line}", self.detail) if part)

    __repr__ = __str__  # a notebook shows the value of a cell's last line


def check(number: int, *written: Any, **named: Any) -> Verdict:
    """Check functions or classes of exercise `number` where they are, such as in a notebook.

    Args:
        number: the exercise.
        *written: the learner's functions and classes, in the order of the exercise. Their names do not matter.
        **named: some of them by name. For all that are not given the package's own are used.

    Returns:
        What the check found; it prints as text, and is true if the code passed.

    Raises:
        ConfigError: there is no such exercise, or it does not ask for these names.
    """
    entry = get_entry(number)
    if (not written and not named) or len(written) > len(entry.defines) or set(named) - set(entry.defines):
        raise ConfigError(f"learn.check({number}, …) takes {', '.join(entry.defines)}: give one of them, or more")
    given = dict(zip(entry.defines, written, strict=False)) | named
    exercise = load_exercise(entry)
    files = {inspect.unwrap(value).__code__.co_filename for value in given.values() if hasattr(value, "__code__")}
    for value in given.values():
        if isinstance(value, type):
            files |= {f.__code__.co_filename for f in vars(value).values() if hasattr(f, "__code__")}
    return judge(entry, exercise, make_namespace(exercise, given), files)


def make_namespace(exercise: Exercise, given: Mapping[str, Any] | None = None) -> SimpleNamespace:
    """Return the references of an exercise by name, some of them replaced."""
    return SimpleNamespace(**({reference.__name__: reference for reference in exercise.references} | dict(given or {})))


def judge(entry: Entry, exercise: Exercise, namespace: Any, files: Collection[str] = ()) -> Verdict:
    """Compare the learner's code with the reference, and with the mistakes if it is wrong.

    Args:
        entry: the exercise's line of the list.
        exercise: the exercise.
        namespace: has the learner's functions and classes.
        files: the learner's files, whose lines an error shows.
    """
    try:
        for reference in exercise.references:
            _require_usable(namespace, reference)
    except WorkbookError as error:
        return Verdict(entry.number, False, str(error))
    expected = expect(exercise)
    found = run_cases(exercise.cases, namespace, files)
    written = [n for n, mine in enumerate(found) if not is_empty(mine)]
    failed = [n for n in written if not is_same(expected[n], found[n])]
    if failed:
        mistake = find_mistake(exercise, {n: found[n] for n in written})
        if mistake:
            line = next((found[n].line for n in failed if isinstance(found[n], Raised)), "")
            message = f"This is what comes out when {mistake.when}."
            return Verdict(entry.number, False, message, mistake.when, line=line)
        return _describe_failure(entry, exercise, expected, found, failed[0])
    empty = next((mine for mine in found if is_empty(mine)), None)
    if empty:
        start = "What you have written so far is right. The next body" if written else "This body"
        return Verdict(entry.number, False, f"{start} is still to be written.", line=empty.line)
    return Verdict(entry.number, True, f"Exercise {entry.number} passes: {entry.title}.")


def is_empty(outcome: Any) -> bool:
    """Return True if a body is still to be written. PyTorch raises NotImplementedError too, with another message."""
    return (
        isinstance(outcome, Raised) and outcome.kind == "NotImplementedError" and outcome.message in ("", TODO_MESSAGE)
    )


def _describe_failure(
    entry: Entry, exercise: Exercise, expected: list[Any], found: list[Any], first: int
) -> Verdict:  # fmt: skip
    """Describe the first case that fails: the error, or the two results."""
    case, mine = exercise.cases[first], found[first]
    if isinstance(mine, Raised):
        if mine.kind == "WorkbookError":
            return Verdict(entry.number, False, mine.message, line=mine.line)
        if mine.kind == "SystemExit":
            return Verdict(entry.number, False, f"Your code calls exit() in {case.about}.", line=mine.line)
        reason = f": {mine.message}" if mine.message else ""
        message = f"{mine.kind} in {case.about}{reason}"
        advice = find_advice(mine)
        return Verdict(entry.number, False, message, line=mine.line, detail=advice and f"  {advice}")
    difference = find_difference(expected[first], mine)
    assert difference is not None
    return Verdict(
        entry.number, False, _state_difference(case.about, difference), detail=format_side_by_side(difference)
    )


def _state_difference(about: str, difference: Difference) -> str:
    """Return the sentence above the two results."""
    place = f", {difference.place}" if difference.place else ""
    reason = f": {difference.reason}" if difference.reason else ""
    end = "" if reason.endswith("?") else "."
    return f"The result differs for {about}{place}{reason}{end}"


@functools.cache
def _expect(cases: tuple, references: tuple) -> list[Any]:
    """Return the results of the references."""
    return run_cases(cases, SimpleNamespace(**{reference.__name__: reference for reference in references}))


def expect(exercise: Exercise) -> list[Any]:
    """Return the right result of each case."""
    return _expect(exercise.cases, exercise.references)


def find_mistake(exercise: Exercise, found: Mapping[int, Any]) -> Mistake | None:
    """Return the listed mistake that gives the same results as the learner's code, if there is one.

    Only the cases of the functions in which the mistake is are compared: the learner's others may have mistakes of
    their own, or call the wrong function.

    Args:
        exercise: the exercise.
        found: the learner's results by the number of the case, from 0.
    """
    for mistake in exercise.mistakes:
        namespace = make_namespace(exercise, mistake.variants)
        compared = [n for n in find_cases(exercise, mistake) if n in found]
        if compared and all(is_same(run_case(exercise.cases[n], namespace), found[n]) for n in compared):
            return mistake
    return None


def find_cases(exercise: Exercise, mistake: Mistake) -> list[int]:
    """Return the numbers of the cases of the functions in which a mistake is: their texts name the function."""
    if len(exercise.references) == 1:
        return [*range(len(exercise.cases))]
    pattern = re.compile(rf"\b({'|'.join(mistake.variants)})\b")
    return [n for n, case in enumerate(exercise.cases) if pattern.search(case.about)]


def _require_usable(namespace: Any, reference: Any) -> None:
    """Raise WorkbookError if a function or class is missing, or takes other arguments than the reference."""
    name = reference.__name__
    written = getattr(namespace, name, None)
    if written is None:
        raise WorkbookError(f"Your file has no {name}: keep the name that the exercise gave it.")
    if not callable(written):
        raise WorkbookError(f"{name} must be a function or a class, and is {written!r:.50}.")
    if not isinstance(reference, type):
        _require_signature(written, reference, name)
        return
    if not isinstance(written, type):
        raise WorkbookError(f"{name} must be a class.")
    _require_signature(written, reference, name)
    for method_name, method in vars(reference).items():
        if inspect.isfunction(method) and hasattr(written, method_name):
            _require_signature(getattr(written, method_name), method, f"{name}.{method_name}")


def _require_signature(written: Any, reference: Any, name: str) -> None:
    """Raise WorkbookError if a function cannot be called as the reference is."""
    parameters = inspect.signature(reference).parameters.values()
    names = [parameter.name for parameter in parameters]
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    try:
        signature = inspect.signature(written)
    except (TypeError, ValueError):  # a function without a readable signature, such as one of C
        return
    for arguments in (names, required):
        try:
            signature.bind(*arguments)
        except TypeError:
            asked, has = (", ".join(n for n in ns if n != "self") for ns in (names, signature.parameters))
            raise WorkbookError(f"{name} must take ({asked}), and yours takes ({has}): keep the first line.") from None

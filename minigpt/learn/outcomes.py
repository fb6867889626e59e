"""Run the cases of an exercise, and compare what comes out."""

import contextlib
import linecache
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigpt.learn.exercise import Case, WorkbookError

RELATIVE, ABSOLUTE = 1e-4, 1e-5  # tolerances: another order of operations rounds differently
SEED = 20_000  # of PyTorch's random numbers in a case: no input has it, so a layer made anew never equals an input
SHOWN_NUMBERS = 24  # larger arrays are shown in part


@dataclass(frozen=True)
class Raised:
    """An exception of the learner's code. Two are equal if their kind and message are.

    Attributes:
        kind: the name of its class.
        message: what it says.
        line: the learner's own line, as "line 12: x = y", or an empty string.
    """

    kind: str
    message: str
    line: str = field(compare=False)


@dataclass(frozen=True)
class Difference:
    """The first difference between two results.

    Attributes:
        place: which part of the result, such as "the gradient of x", or an empty string.
        reason: a sentence.
        found: the learner's value, as text.
        expected: the reference's value, as text.
    """

    place: str
    reason: str
    found: str = ""
    expected: str = ""


def run_cases(cases: Sequence[Case], namespace: Any, files: Collection[str] = ()) -> list[Any]:
    """Run all cases.

    Args:
        cases: the computations.
        namespace: what they compute with.
        files: the learner's files, whose lines an exception shows.

    Returns:
        For each case its result, or Raised.
    """
    return [run_case(case, namespace, files) for case in cases]


def run_case(case: Case, namespace: Any, files: Collection[str] = ()) -> Any:
    """Run one case, always with the same random numbers; return its result, or Raised."""
    with _seeded():
        try:
            return to_plain(case.compute(namespace))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: the learner's code may call exit()
            return describe_exception(error, files)


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seed PyTorch's random numbers, if it is imported; afterwards they are those of before.

    `torch.manual_seed` would note a traceback for each call, where there is no GPU yet.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(SEED)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def describe_exception(error: BaseException, files: Collection[str] = ()) -> Raised:
    """Return an exception with the innermost line that stands in one of the learner's files."""
    line = ""
    for frame, number in reversed([*traceback.walk_tb(error.__traceback__)]):
        file = frame.f_code.co_filename
        if file in files:
            line = f"line {number}: {linecache.getline(file, number).strip()}"
            break
    if isinstance(error, SyntaxError) and error.lineno and error.filename in files:
        line = f"line {error.lineno}: {(error.text or '').strip()}"
        return Raised("SyntaxError", error.msg, line)
    return Raised(type(error).__name__, str(error), line)


def to_plain(value: Any) -> Any:
    """Return a result in plain types: arrays of float64, whole numbers or bools; numbers; strings; lists; dicts."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if numpy and isinstance(value, numpy.ndarray | numpy.generic):
        return value.item() if value.ndim == 0 else value.astype(float) if value.dtype.kind == "f" else value.copy()
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def is_same(expected: Any, found: Any) -> bool:
    """Return True if two results are equal within rounding."""
    return find_difference(expected, found) is None


def find_difference(expected: Any, found: Any, place: str = "") -> Difference | None:
    """Return the first difference between two plain results, or None if they are equal within rounding."""
    if isinstance(expected, Raised) or isinstance(found, Raised):
        return None if _is_same_exception(expected, found) else Difference(place, "an error", str(found), str(expected))
    if isinstance(expected, dict) and isinstance(found, dict) and all(isinstance(key, str) for key in expected):
        return _find_difference_of_dicts(expected, found, place)
    if isinstance(expected, list) and isinstance(found, list) and any(isinstance(e, list | dict) or _is_array(e)
                                                                      for e in expected):  # fmt: skip
        return _find_difference_of_lists(expected, found, place)
    if _is_array(expected) and _is_array(found):
        return _find_difference_of_arrays(expected, found, place)
    if _is_array(expected) or _is_array(found) or not _has_same_kind(expected, found):
        return Difference(place, _compare_kinds(expected, found, place), *map(format_value, (found, expected)))
    if _is_equal(expected, found):
        return None
    return Difference(place, "", *map(format_value, (found, expected)))


def _is_same_exception(expected: Any, found: Any) -> bool:
    """Return True if both raise the same. An array must not be compared by `==`: its result would be an array."""
    return isinstance(expected, Raised) and isinstance(found, Raised) and expected == found


def _find_difference_of_dicts(expected: dict, found: dict, place: str) -> Difference | None:
    """Compare dicts with names as keys, part by part, if they have the same names."""
    if expected.keys() != found.keys():
        return Difference(place, "", format_value(found), format_value(expected))
    differences = (find_difference(value, found[key], place or key) for key, value in expected.items())
    return next((difference for difference in differences if difference), None)


def _find_difference_of_lists(expected: list, found: list, place: str) -> Difference | None:
    """Compare lists of arrays and of lists, item by item, if they have the same length."""
    if len(expected) != len(found):
        reason = f"it has {len(found)} parts and must have {len(expected)}"
        return Difference(place, reason, format_value(found), format_value(expected))
    parts = [f"{place}, part {n}" if place else f"part {n} of the result" for n in range(1, len(expected) + 1)]
    differences = map(find_difference, expected, found, parts)
    return next((difference for difference in differences if difference), None)


def _find_difference_of_arrays(expected: Any, found: Any, place: str) -> Difference | None:
    """Compare arrays: their shapes, their kinds of numbers and their values."""
    import numpy as np

    if expected.shape != found.shape:
        reason = f"the shape is {found.shape} and must be {expected.shape}"
        return Difference(place, reason, *map(format_value, (found, expected)))
    if expected.dtype.kind in "iu" and found.dtype.kind == "f":
        return Difference(place, "the numbers must be whole numbers (int64)", *map(format_value, (found, expected)))
    is_close = np.isclose(found, expected, RELATIVE, ABSOLUTE, equal_nan=True)
    if is_close.all():
        return None
    if expected.size <= SHOWN_NUMBERS:
        return Difference(place, "", format_value(found), format_value(expected))
    index = tuple(int(i) for i in np.argwhere(~is_close)[0][:-1])
    where = f"[{', '.join(map(str, index))}]" if index else ""
    row = f"{place or 'the result'}{where}"
    return Difference(
        row, "", format_value(found[index][:SHOWN_NUMBERS]), format_value(expected[index][:SHOWN_NUMBERS])
    )


def _is_array(value: Any) -> bool:
    """Return True for an array of NumPy, also where NumPy is not imported."""
    return "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].ndarray)


def _has_same_kind(expected: Any, found: Any) -> bool:
    """Return True if the types can be compared; all numbers can."""
    is_number = [isinstance(value, int | float | bool) for value in (expected, found)]
    return all(is_number) or (not any(is_number) and type(expected) is type(found))


def _is_equal(expected: Any, found: Any) -> bool:
    """Compare two values of the same kind, floats within rounding."""
    if isinstance(expected, float) or isinstance(found, float):
        same = expected == found or (expected != expected and found != found)
        return same or abs(expected - found) <= ABSOLUTE + RELATIVE * abs(expected)
    if isinstance(expected, list):
        return len(expected) == len(found) and all(map(is_same, expected, found))
    return expected == found


def _compare_kinds(expected: Any, found: Any, place: str) -> str:
    """Return a sentence on two values of different kinds."""
    if found is None and place.startswith("the gradient"):
        return "there is none: is the result cut off from it, by .item() or .detach()?"
    if found is None:
        return f"it is None and must be {_name_kind(expected)}: is `return` missing?"
    return f"it is {_name_kind(found)} and must be {_name_kind(expected)}"


def _name_kind(value: Any) -> str:
    """Return what a value is, for a sentence."""
    if _is_array(value):
        return f"a tensor of shape {value.shape}"
    if isinstance(value, list) and any(isinstance(item, list | dict) or _is_array(item) for item in value):
        return f"{len(value)} values"
    name = type(value).__name__
    names = {"NoneType": "None", "str": "a string", "int": "a number", "float": "a number"}
    return names.get(name, f"a {name}" if name in ("list", "dict", "generator", "Counter") else f"of type {name}")


def format_value(value: Any) -> str:
    """Return a value as text, in a few lines."""
    if _is_array(value):
        import numpy as np

        return np.array2string(value, precision=4, suppress_small=True, threshold=SHOWN_NUMBERS, max_line_width=50)
    text = _format_plain(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _format_plain(value: Any) -> str:
    """Return a value on one line, its floats with four digits."""
    if _is_array(value):
        return _format_plain(value.tolist())
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return f"[{', '.join(map(_format_plain, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_format_plain(item)}' for key, item in value.items())}}}"
    return repr(value)


def name_parts(function: str, result: Any, *names: str) -> dict[str, Any]:
    """Return the values that a function returned by their names. Raise WorkbookError if it returned something else."""
    if not isinstance(result, tuple | list) or len(result) != len(names):
        kind = " Is `return` missing?" if result is None else ""
        raise WorkbookError(f"{function} must return {len(names)} values: {', '.join(names)}.{kind}")
    return dict(zip(names, result, strict=True))


def format_side_by_side(difference: Difference) -> str:
    """Return the learner's value and the expected one in two columns, or below each other where they are wide."""
    left, right = (["yours", *difference.found.splitlines()], ["expected", *difference.expected.splitlines()])
    width = max(map(len, left))
    if width > 50:
        return "\n".join(f"  {line}" for line in (*left, *right))
    height = max(len(left), len(right))
    left, right = (column + [""] * (height - len(column)) for column in (left, right))
    return "\n".join(f"  {a:<{width}}   {b}".rstrip() for a, b in zip(left, right, strict=True))


def require(condition: bool, message: str) -> None:
    """Raise WorkbookError with a message unless a condition holds."""
    if not condition:
        raise WorkbookError(message)

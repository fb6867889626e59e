"""Run a learner's file, and take parts of earlier exercises out of it."""

import linecache
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from minigpt.learn.catalog import find_definition, load_exercise
from minigpt.learn.workbook import MAX_BYTES, Workbook
from minigpt.system.files import read_text

_own_parts: set[str] = set()  # names that the learner's files took from each other in this process


def run_learner_file(path: Path) -> ModuleType:
    """Run a learner's file as a module, without its experiment, and return the module.

    Nothing is written: Python's own import would leave a compiled copy beside the file.
    """
    name = f"learner_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look their module up
    linecache.checkcache(str(path))
    exec(compile(read_text(path, MAX_BYTES), str(path), "exec"), vars(module))
    return module


def load_part(file: str, name: str) -> Any:
    """Return a function or class of an earlier exercise for the learner's file.

    Args:
        file: the learner's file: `__file__`.
        name: the function or class, such as "Head".

    Returns:
        The learner's own, if the exercise's check has passed and its file has not changed since; else the package's.
    """
    entry = find_definition(name)
    workbook = Workbook(Path(file).parent)
    if workbook.is_done(entry):
        _own_parts.add(name)
        return getattr(run_learner_file(workbook.get_path(entry)), name)
    return next(reference for reference in load_exercise(entry).references if reference.__name__ == name)


def list_own_parts() -> list[str]:
    """Return the names of the learner's own parts that were used since `forget_own_parts`."""
    return sorted(_own_parts)


def forget_own_parts() -> None:
    """Begin a new list of own parts, for another exercise."""
    _own_parts.clear()

"""A workbook with all solutions in it, which are the package's own functions."""

import ast
import dataclasses
from pathlib import Path

from minigpt.learn.catalog import ENTRIES, Entry, load_exercise
from minigpt.learn.skeleton import get_source, make_skeleton
from minigpt.learn.workbook import Workbook


def make_solution(entry: Entry) -> str:
    """Return the learner's file with all bodies."""
    exercise = load_exercise(entry)
    kept = set()
    for reference in exercise.references:
        node = ast.parse(get_source(reference)).body[0]
        methods = node.body if isinstance(node, ast.ClassDef) else []
        kept |= {node.name, *(f"{node.name}.{m.name}" for m in methods if isinstance(m, ast.FunctionDef))}
    return make_skeleton(entry, dataclasses.replace(exercise, kept=tuple(kept)))


def write_solutions(folder: Path) -> Workbook:
    """Make a workbook, and write every solution into it."""
    workbook, _ = Workbook.start(folder)
    for entry in ENTRIES:
        workbook.get_path(entry).write_text(make_solution(entry))
    return workbook

"""Make the learner's file from the package's own source: signatures and docstrings stay, bodies go."""

import ast
import inspect
import textwrap
from typing import Any

from minigpt.learn.catalog import Entry
from minigpt.learn.exercise import Exercise

TODO_MESSAGE = "write this body"
TODO = f'raise NotImplementedError("{TODO_MESSAGE}")'
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def make_skeleton(entry: Entry, exercise: Exercise) -> str:
    """Return the content of the learner's file."""
    header = f'"""{entry.number}. {entry.title}\n\n{exercise.text.strip()}\n\n{_describe_work(entry)}\n"""'
    parts = "\n".join(f'{name} = load_part(__file__, "{name}")' for name in exercise.parts)
    imports = exercise.imports.strip()
    if parts:
        imports = _add_import(imports, "from minigpt.learn import load_part")
        parts = f"# Your own code of an earlier exercise if its check has passed, else the package's.\n{parts}"
    bodies = [remove_bodies(reference, exercise) for reference in exercise.references]
    experiment = textwrap.indent(exercise.experiment.strip(), "    ")
    run = f'if __name__ == "__main__":  # the experiment: python {entry.file_name}\n{experiment}'
    head = [part for part in (header, imports, parts) if part]
    return "\n\n".join(head) + "\n\n\n" + "\n\n\n".join([*bodies, run]) + "\n"


def _describe_work(entry: Entry) -> str:
    """Return what the learner does with the file: the last lines of its text."""
    commands = {
        f"minigpt learn check {entry.number}": "is your code right?",
        f"minigpt learn hint {entry.number}": "help, a little more each time",
        f"python {entry.file_name}": "the experiment at the end of this file",
    }
    width = max(map(len, commands))
    lines = [f"    {command:<{width}}   {about}" for command, about in commands.items()]
    return "\n".join(["Write your code in place of each line `raise NotImplementedError(...)`. Then:", "", *lines])


def _add_import(imports: str, line: str) -> str:
    """Add an import to a block of imports, in the order of the package's own names."""
    lines = imports.splitlines()
    ours = [n for n, other in enumerate(lines) if other.startswith("from minigpt")]
    if not ours:
        return f"{imports}\n\n{line}"
    place = next((n for n in ours if lines[n] > line), ours[-1] + 1)
    return "\n".join([*lines[:place], line, *lines[place:]])


def remove_bodies(reference: Any, exercise: Exercise) -> str:
    """Return the source of a function or class without the bodies that the learner writes."""
    source = get_source(reference)
    lines = source.splitlines()
    node = ast.parse(source).body[0]
    methods = node.body if isinstance(node, ast.ClassDef) else [node]
    prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
    for method in reversed(methods):
        if not isinstance(method, _FUNCTIONS):
            continue
        if prefix + method.name in exercise.dropped:
            del lines[_find_first_line(method) - 2 : method.end_lineno]  # with the blank line before it
        elif prefix + method.name not in exercise.kept:
            _empty(method, lines)
    return "\n".join(_simplify(lines)).rstrip()


def get_source(reference: Any) -> str:
    """Return the source of a function or class, without the indentation of its place."""
    return textwrap.dedent(inspect.getsource(reference)).rstrip()


def _find_first_line(method: Any) -> int:
    """Return the number of the line with which a function begins, from 1: that of its first decorator."""
    return min([method.lineno, *(decorator.lineno for decorator in method.decorator_list)])


def _empty(method: Any, lines: list[str]) -> None:
    """Replace a function's body below its docstring. A call of `super().__init__()` stays."""
    body = method.body
    has_docstring = ast.get_docstring(method) is not None
    first = body[int(has_docstring) :]
    if first and ast.unparse(first[0]) == "super().__init__()":
        first = first[1:]
    start = first[0].lineno - 1
    while lines[start - 1].strip().startswith("#"):  # a comment above the first statement would give it away
        start -= 1
    indent = " " * first[0].col_offset
    lines[start : method.end_lineno] = [f"{indent}{TODO}"]


def _simplify(lines: list[str]) -> list[str]:
    """Leave out the checks of the configuration, which the exercise does not need."""
    kept = [line for line in lines if "config = require_model_config(config, type(self).__name__)" not in line
            or "self.config" in line]  # fmt: skip
    return [line.replace("require_model_config(config, type(self).__name__)", "config") for line in kept]

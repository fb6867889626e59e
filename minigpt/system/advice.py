"""Suggest the next command to a user of the shell, or the next call to a user of Python."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_program: ContextVar[str | None] = ContextVar("program", default=None)  # None: the caller is in Python
_is_on_page: ContextVar[bool] = ContextVar("is_on_page", default=False)


@contextmanager
def advise_commands() -> Iterator[None]:
    """Within the block, advice names commands. Without it, advice names calls of Python."""
    token = _program.set(find_program_name())
    try:
        yield
    finally:
        _program.reset(token)


@contextmanager
def advise_page() -> Iterator[None]:
    """Within the block, advice about a missing text is for a reader of the playground, who can name no file."""
    token = _is_on_page.set(True)
    try:
        yield
    finally:
        _is_on_page.reset(token)


def find_program_name() -> str:
    """Return how this program was called, so that the user can type a suggested command."""
    called = Path(sys.argv[0])
    found = shutil.which("minigpt")
    is_found = found and Path(found).resolve().with_suffix("") == called.resolve().with_suffix("")  # Windows adds .exe
    if is_found or not called.is_file():  # `python -c` has no file
        return "minigpt"
    return "python -m minigpt" if called.name == "__main__.py" else os.path.relpath(called)


def choose_advice(command: str, call: str) -> str:
    """Return the command, or the call that does the same.

    Args:
        command: a flag, or a command that begins with "minigpt".
        call: a call or an argument of Python.
    """
    program = _program.get()
    if program is None:
        return call
    return command.replace("minigpt", program, 1) if command.startswith("minigpt ") else command


def format_setting(name: str, *values: Any) -> str:
    """Return a setting as a flag, `--max-iters 5`, or as an argument of Python, `max_iters=5`.

    Args:
        name: the setting.
        values: values to choose from; without one, the reader fills the value in.
    """
    flag = f"--{name.replace('_', '-')}"
    if not values:
        return choose_advice(flag, f"{name}=…")
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    literals = [repr(value) if isinstance(value, str) else text for value, text in zip(values, texts, strict=True)]
    return choose_advice(f"{flag} {' or '.join(texts)}", f"{name}={' or '.join(literals)}")


def advise_text(text: str) -> str:
    """Return what to do about a text that was not found: `name that text with --data`.

    A reader of the playground can name no file, and is told to choose another run.

    Args:
        text: what to name, such as "that text" or "one".
    """
    if _is_on_page.get():
        return "choose another run"
    return f"name {text} with {format_setting('data')}"

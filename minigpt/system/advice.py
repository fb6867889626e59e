"""What to type next: a command for somebody at a shell, a call for somebody in Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_is_at_shell: ContextVar[bool] = ContextVar("is_at_shell", default=False)


@contextmanager
def advise_commands() -> Iterator[None]:
    """Within the block, advice names commands. Without it, advice names calls of Python."""
    token = _is_at_shell.set(True)
    try:
        yield
    finally:
        _is_at_shell.reset(token)


def choose_advice(command: str, call: str) -> str:
    """Return the command, or the call that does the same."""
    return command if _is_at_shell.get() else call


def format_setting(name: str, value: Any) -> str:
    """Return a setting as a flag, `--max-iters 5`, or as an argument of Python, `max_iters=5`."""
    return choose_advice(f"--{name.replace('_', '-')} {value}", f"{name}={value}")

"""Dataclass fields with a help text and bounds, and a base class that refuses wrong values in one sentence."""

import dataclasses
import html
import inspect
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from typing import Any, Literal, Self, TypeVar, get_args

from minigpt.errors import ConfigError, suggest_name

COMPARISONS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}
MAX_NUMBERS = {int: 2**63 - 1, float: sys.float_info.max}  # the largest numbers that PyTorch can hold
MAX_SHOWN = 100  # characters of a refused value in a message
Function = TypeVar("Function", bound=Callable[..., Any])


def setting(default: Any, help: str, **bounds: float) -> Any:
    """Return a dataclass field for a setting.

    Args:
        default: the default value. None means that the setting is optional.
        help: the help text of the command line's flag.
        **bounds: limits of a number: `at_least`, `above`, `at_most`, `below`.
    """
    return field(default=default, metadata={"help": help, "bounds": bounds})


class ValidatedSettings:
    """Base class of the settings' dataclasses: an instance with a wrong value cannot be made.

    Its `repr` has only the values that differ from the defaults. A notebook shows a table of all values.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            validate(f, getattr(self, f.name))

    @classmethod
    def from_keywords(cls, **settings: Any) -> Self:
        """Return an instance with these settings. Raise ConfigError for an unknown name."""
        require_known(settings, cls.names())
        return cls(**settings)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the settings, in order."""
        return [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]

    def __repr__(self) -> str:
        changed = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        return make_html_table(vars(self))


def drop_unset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given: those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def make_html_table(rows: Mapping[str, Any]) -> str:
    """Return a table of names and their values as HTML."""
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(cells)}</table>"


def list_settings(
    *kinds: type[ValidatedSettings], without: Collection[str] = (), has_defaults: bool = True
) -> Callable[[Function], Function]:
    """Return a decorator that lists settings in a function's signature, in place of its `**` argument.

    So `help` shows them, and a notebook completes their names.

    Args:
        *kinds: the dataclasses of the settings.
        without: names that the function does not take.
        has_defaults: whether the settings' own defaults apply. Otherwise the signature shows None.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        given = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {parameter.name for parameter in given}.union(without)
        listed = [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default if has_defaults else None, annotation=f.type
            )
            for kind in kinds
            for f in dataclasses.fields(kind)  # type: ignore[arg-type]
            if f.name not in names
        ]
        function.__signature__ = signature.replace(parameters=[*given, *listed])  # type: ignore[attr-defined]
        return function

    return decorate


def validate(f: dataclasses.Field, value: Any) -> None:
    """Raise ConfigError if the field cannot have this value."""
    if value is None and f.default is None:
        return
    choices, kind = get_choices(f), get_value_type(f)
    if choices:
        if value not in choices:
            raise ConfigError(f"{f.name} must be one of {', '.join(choices)}, not {format_value(value)}")
    elif kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{f.name} must be true or false, not {format_value(value)}")
    elif kind is str:
        if not isinstance(value, str):
            raise ConfigError(f"{f.name} must be a text, not {format_value(value)}")
    elif not _is_number(value, kind) or not _is_within(value, f.metadata["bounds"]):
        limits = " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in f.metadata["bounds"].items())
        noun = "a number" if kind is float else "a whole number"
        raise ConfigError(f"{f.name} must be {noun} {limits}, not {format_value(value)}")


def _is_number(value: Any, kind: type) -> bool:
    accepted = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, accepted):
        return False
    return abs(value) <= MAX_NUMBERS[kind]  # False for NaN too


def _is_within(value: float, bounds: dict[str, float]) -> bool:
    return all(COMPARISONS[name](value, bound) for name, bound in bounds.items())


def require_known(names: Iterable[str], known: Collection[str]) -> None:
    """Raise ConfigError for the first name that is not a known setting."""
    for name in names:
        if name not in known:
            hint = suggest_name(name, known) or f": known are {', '.join(known)}"
            raise ConfigError(f"there is no setting '{name}'{hint}")


def require_encoding(name: str) -> None:
    """Raise ConfigError if Python does not know an encoding of text by this name."""
    try:
        b"a".decode(name)
    except UnicodeDecodeError:
        pass  # a letter of UTF-16 has two bytes
    except (LookupError, ValueError):
        known = "utf-8, utf-16, cp1252 (Windows, Western Europe), cp932 (Windows, Japan) and gb18030 (China)"
        raise ConfigError(f"there is no encoding {format_value(name)}: name one such as {known}") from None


def format_value(value: Any) -> str:
    """Return a refused value as text that is short enough for a message."""
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a number of more than 64 bits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a list of very long numbers, or of very many nested lists
        return f"a {type(value).__name__} without end"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def get_value_type(f: dataclasses.Field) -> Any:
    """Return the type of the field, without `None`."""
    return next((t for t in get_args(f.type) if t is not type(None)), f.type)


def get_choices(f: dataclasses.Field) -> tuple[str, ...]:
    """Return the values of a Literal field, in order. Other fields have none."""
    return get_args(f.type) if getattr(f.type, "__origin__", None) is Literal else ()

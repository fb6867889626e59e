"""Settings that check themselves: dataclass fields with a help text and bounds, refused in one sentence."""

import dataclasses
import operator
import sys
from dataclasses import field
from typing import Any, Literal, Self, get_args

from minigpt.errors import ConfigError, nearest


def setting(default: Any, help: str, **bounds: float) -> Any:
    """A dataclass field with its help text and bounds: `at_least`, `above`, `at_most`, `below`."""
    return field(default=default, metadata={"help": help, "bounds": bounds})


BOUNDS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}
LARGEST = {int: 2**63 - 1, float: sys.float_info.max}  # what PyTorch can hold
LONGEST_SHOWN = 100  # characters of a value in a message


class Checked:
    """Refuses, on construction, a field whose value is of the wrong kind or out of its bounds."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            check(f, getattr(self, f.name))

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """The dataclass with these settings; ConfigError, with the nearest right name, for one it doesn't have."""
        for name in settings:
            if name not in cls.names():
                raise unknown(name, cls.names())
        return cls(**settings)

    @classmethod
    def names(cls) -> list[str]:
        """The names of the settings, in order."""
        return [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]


def check(f: dataclasses.Field, value: Any) -> None:
    """Raise ConfigError in one sentence if `value` is not one the field can have."""
    if value is None and f.default is None:
        return
    if choices := choices_of(f):
        if value not in choices:
            raise ConfigError(f"{f.name} must be one of {', '.join(choices)}, not {shown(value)}")
        return
    kind = kind_of(f)
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{f.name} must be true or false, not {shown(value)}")
        return
    accepted = (int, float) if kind is float else (int,)
    ok = isinstance(value, accepted) and not isinstance(value, bool)
    ok = ok and abs(value) <= LARGEST[kind]  # false for a NaN too
    bounds = f.metadata["bounds"]
    if not (ok and all(BOUNDS[name](value, bound) for name, bound in bounds.items())):
        limits = " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds.items())
        noun = "a number" if kind is float else "a whole number"
        raise ConfigError(f"{f.name} must be {noun} {limits}, not {shown(value)}")


def shown(value: Any) -> str:
    """A refused value as it was given, unless it is endless."""
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a number of more than 64 bits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits in a list, or of lists in one another
        return f"a {type(value).__name__} without end"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def unknown(name: str, known: list[str]) -> ConfigError:
    """The error that says so of a name that is no setting, with the nearest that is."""
    return ConfigError(f"there is no setting '{name}'{nearest(name, known) or ': known are ' + ', '.join(known)}")


def kind_of(f: dataclasses.Field) -> Any:
    """The field's type, without the None that it may allow."""
    return next((t for t in get_args(f.type) if t is not type(None)), f.type)


def choices_of(f: dataclasses.Field) -> tuple[str, ...]:
    """The values of a Literal field, in order; empty for every other field."""
    return get_args(f.type) if getattr(f.type, "__origin__", None) is Literal else ()

"""Settings in TOML: parse the text, and join its tables."""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from minigpt.config_fields import ValidatedSettings, format_value
from minigpt.errors import ConfigError, suggest_name

MAX_TOML, MAX_LINE = 2**16, 1000  # characters; the parser's time and memory grow with the square of a dotted key


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raise ConfigError for a text that is not TOML or is too long."""
    if len(text) > MAX_TOML or any(len(line) > MAX_LINE for line in text.split("\n")):
        limits = f"{MAX_TOML:,} characters, or {MAX_LINE:,} in a line"
        raise ConfigError(f"not TOML of settings: it has more than {limits}: shorten it")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from None


def flatten_tables(content: dict[str, Any], tables: Mapping[str, type[ValidatedSettings]]) -> dict[str, Any]:
    """Return the settings of all tables, and of no table, as one dictionary.

    Args:
        content: the parsed TOML.
        tables: the names of the tables, and which settings each has.

    Raises:
        ConfigError: a table or a setting in one is unknown.
    """
    settings: dict[str, Any] = {}
    for table, part in tables.items():
        names = part.names()
        values = content.pop(table, {})
        if not isinstance(values, Mapping):
            raise ConfigError(f"'{table}' must be a table of settings, not {format_value(values)}")
        for name in values:
            if name not in names:
                raise ConfigError(f"there is no setting '{name}' under [{table}]{suggest_name(name, names)}")
        settings |= values
    for name, value in content.items():
        if isinstance(value, Mapping):
            known = " and ".join(f"[{table}]" for table in tables)
            hint = suggest_name(name, tables) or f": known are {known}"
            raise ConfigError(f"there is no table [{name}]{hint}")
    return settings | content


def require_complete(settings: Collection[str], parts: Iterable[type[ValidatedSettings]]) -> None:
    """Raise ConfigError for a setting that is left out."""
    for part in parts:
        for name in part.names():
            if name not in settings and getattr(part, name) is not None:  # TOML has no None
                raise ConfigError(f"the setting '{name}' is missing")

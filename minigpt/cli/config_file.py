"""The settings that a command starts from: a preset, or a TOML file."""

from collections.abc import Iterable

from minigpt.config import Config
from minigpt.errors import ConfigError
from minigpt.presets import PRESETS
from minigpt.system.files import read_text

MAX_BYTES = 2**20


def describe_presets(names: Iterable[str]) -> str:
    """Return the help text that lists these presets below a command's flags."""
    return "\b\nPresets:\n" + "\n".join(f"  {name:<14} {PRESETS[name].about}" for name in names)


def read_config(path: str | None, preset: str | None) -> Config:
    """Return the configuration before any flag: the file's, the preset's, or the lecture's.

    Raises:
        ConfigError: the preset or a setting is unknown or wrong.
        FileError: the file cannot be read.
    """
    if path is None:
        return Config.from_preset(preset or "lecture")
    try:
        config = Config.from_toml(read_text(path, MAX_BYTES, allow_pipe=True), preset)
        return config.override(schedule_start=0, schedule_end=0)  # a resumed run's file may have others
    except ConfigError as error:
        raise ConfigError(f"{path!r}: {error}") from None

"""The settings of a training that the page can start: described for a form, checked, and written as flags."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from minigpt.config import UNSETTABLE, Config, ModelConfig, TrainingConfig
from minigpt.config_fields import get_choices, get_value_type, require_known
from minigpt.presets import PRESETS

MAIN = (  # the settings that a form shows first
    "max_iters",
    "max_minutes",
    "batch_size",
    "learning_rate",
    "block_size",
    "n_embd",
    "n_head",
    "n_layer",
    "dropout",
    "tokenizer",
    "eval_interval",
    "seed",
)
TYPES = {int: "integer", float: "number", bool: "flag", str: "text"}
OMITTED = {*UNSETTABLE, "vocab_size", "parallel"}  # vocab_size follows from the text, and one process trains
FIELDS: dict[str, dataclasses.Field] = {
    f.name: f
    for settings in (ModelConfig, TrainingConfig)
    for f in dataclasses.fields(settings)
    if f.name not in OMITTED
}


def describe_settings() -> dict[str, Any]:
    """Return what docs/web_api.md says of the presets and the settings."""
    order = [*MAIN, *(name for name in FIELDS if name not in MAIN)]
    return {
        "presets": [
            {"name": name, "about": preset.about, "settings": _list_values(Config.from_preset(name))}
            for name, preset in PRESETS.items()
        ],
        "settings": [_describe_field(FIELDS[name]) for name in order],
    }


def _list_values(config: Config) -> dict[str, Any]:
    values = {**vars(config.model), **vars(config.training)}
    return {name: values[name] for name in FIELDS}


def _describe_field(f: dataclasses.Field) -> dict[str, Any]:
    choices = get_choices(f)
    return {
        "name": f.name,
        "help": f.metadata["help"],
        "type": "choice" if choices else TYPES[get_value_type(f)],
        "choices": list(choices),
        "is_main": f.name in MAIN,
    }


def check_settings(preset: str, settings: Mapping[str, Any]) -> Config:
    """Return the configuration of a training.

    Args:
        preset: the name of a preset.
        settings: the settings that differ from the preset's.

    Raises:
        ConfigError: a name is unknown, or a value is not allowed.
    """
    require_known(settings, FIELDS)
    return Config.from_preset(preset).override(**settings)


def format_flags(settings: Mapping[str, Any]) -> list[str]:
    """Return checked settings as flags of `minigpt train`.

    >>> format_flags({"max_iters": 5, "qkv_bias": False})
    ['--max-iters', '5', '--no-qkv-bias']
    """
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words

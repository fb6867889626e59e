"""The command line's surface is frozen: a change of it changes surface.txt, on purpose.

`python tests/cli/test_surface.py` writes the file anew.
"""

from pathlib import Path

import click

from minigpt.cli.main import cli

FROZEN = Path(__file__).with_name("surface.txt")


def surface() -> str:
    """Every command with its arguments and flags, their kinds and what they can be."""
    lines = []
    for name, command in cli.commands.items():
        lines.append(f"minigpt {name}")
        for parameter in command.params:
            spelled = ", ".join(parameter.opts) if isinstance(parameter, click.Option) else parameter.name.upper()
            kind = "flag" if getattr(parameter, "is_flag", False) else parameter.type.name
            choices = f" {'|'.join(parameter.type.choices)}" if isinstance(parameter.type, click.Choice) else ""
            lines.append(f"    {spelled}: {kind}{choices}")
    return "\n".join(lines) + "\n"


def test_the_surface_is_the_frozen_one() -> None:
    assert surface() == FROZEN.read_text()


def test_every_flag_is_explained() -> None:
    for command in cli.commands.values():
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


if __name__ == "__main__":
    FROZEN.write_text(surface())
